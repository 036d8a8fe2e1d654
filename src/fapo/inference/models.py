"""The chat models that a config or a command names: parse their addresses, and open them to be asked."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fapo.config.sampling import Requests, Sampling, settings_of
from fapo.data.hub import use_cache_without_network
from fapo.data.miniature import sets as miniature
from fapo.errors import ConfigError, EngineError, install
from fapo.inference.adapters import adapter_base
from fapo.inference.client import ChatClient
from fapo.types import ChatModel

if TYPE_CHECKING:
    from fapo.inference.transformers_model import LocalModel

LOCAL = "local:"
"""Prefix of the address of a model that is loaded in this process."""


def model_folder(path: str) -> str:
    """Return the folder of a model of the miniature ("miniature:NAME"); a folder or Hub id is returned as it is."""
    return str(miniature.base_model(path)) if miniature.is_miniature(path) else path


@contextlib.contextmanager
def loading(key: str, path: str) -> Iterator[None]:
    """Turn the errors of loading a model into a ConfigError.

    Args:
        key: Setting or option that names the model, for the message.
        path: Folder or Hub id of the model, for the message.

    Raises:
        ConfigError: The model cannot be found, it would run code of its own, or a package for it is missing.
    """
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None
    except ImportError as error:
        why = str(error).strip().partition("\n")[0]
        raise ConfigError(f"{key}: {path} needs torch and transformers ({why}): {install('train')}") from None
    except (OSError, ValueError) as error:  # the two that transformers raises for a path that holds no usable model
        if "trust_remote_code" in str(error):
            raise ConfigError(
                f"{key}: {path!r} brings code of its own, which fapo does not run; use a model that transformers knows"
            ) from None
        raise ConfigError(
            f"{key}: cannot load {path!r}: {str(error).partition(chr(10))[0]}; give the folder or the Hub id of a model"
        ) from error


@dataclass(frozen=True)
class ModelSpec:
    """Name and place of a chat model that is asked, not trained."""

    name: str
    """Name under which its servers know the model, or its folder or Hub id if it is loaded in this process."""
    urls: tuple[str, ...] = ()
    """Base URLs of its servers; empty if the model is loaded in this process."""
    revision: str | None = None
    """Any text that changes with the weights that the servers have under this name; only for `record_name`."""

    @property
    def record_name(self) -> str:
        """Name of the model in a response cache; for a local folder it changes when a file of the folder changes.

        Servers may know a model by the absolute path of its folder, as verl's do. If that folder is here, it counts.
        To the name of an adapter that of its base model is added.
        """
        if self.revision:
            return f"{self.name}@{self.revision}"
        folder = Path(self.name if self.urls else model_folder(self.name))
        if not folder.is_dir() or (self.urls and not folder.is_absolute()):
            return self.name
        files = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir())
        name = f"{self.name}@{hashlib.sha256(repr(files).encode()).hexdigest()[:12]}"
        base = adapter_base(str(folder))
        return name if base is None else f"{name} on {ModelSpec(base).record_name}"

    def open(
        self,
        key: str,
        sampling: Sampling,
        requests: Requests = Requests(),
        *,
        seed: int | None = None,
        extra_body: Mapping[str, Any] | None = None,
        logprobs_after: str = "",
    ) -> ChatClient | LocalModel:
        """Return the model, ready to be asked.

        Args:
            key: Setting or option that names the model, for messages.
            sampling: Temperature, nucleus sampling and length limit.
            requests: Limits of the requests to its servers; a model in this process ignores them.
            seed: Seed of the sampling in this process; servers ignore it.
            extra_body: Further fields of each request to a server.
            logprobs_after: Text after which completions have `token_choices`; empty: they have none.

        Returns:
            A client of the servers, or the model loaded into this process.

        Raises:
            ConfigError: The model cannot be loaded, or a value is out of range.
        """
        if self.urls:
            return ChatClient(
                self.urls,
                self.name,
                **settings_of(Requests, requests),
                **settings_of(Sampling, sampling),
                extra_body=extra_body or {},
                logprobs_after=logprobs_after,
            )
        if not Path(model_folder(self.name)).is_dir():
            use_cache_without_network()
        with loading(key, self.name):
            from fapo.inference.transformers_model import LocalModel

            return LocalModel.load(model_folder(self.name), sampling, seed=seed, logprobs_after=logprobs_after)


def reseeded(model: ChatClient | LocalModel, seed: int) -> ChatModel:
    """Change the seed of a local model.

    Args:
        model: Model to be asked.
        seed: Seed of the sampling.

    Returns:
        A copy of the local model; a client as it is, because servers draw anew each time.
    """
    return model if isinstance(model, ChatClient) else replace(model, seed=seed)


def model_specs(
    addresses: Sequence[str], names: Sequence[str], option: str, names_option: str = ""
) -> tuple[ModelSpec, ...]:
    """Parse the addresses of models.

    Args:
        addresses: URLs of servers, or models for this process: local:PATH (a folder or Hub id), miniature:NAME, or the
            path of a folder.
        names: Names of the models that the servers serve, one for each URL or one for all. Without names each server
            is asked, and must have one model.
        option: Command-line option that gives the addresses, for messages.
        names_option: Command-line option that gives the names, for messages; by default `option` with "-model".

    Returns:
        The models in order of their first appearance. Several URLs with the same name are replicas of one model.

    Raises:
        ConfigError: An address is neither a URL nor a model, or the number of names does not fit.
    """
    if not addresses:
        raise ConfigError(f"{option} is missing: give the address of a server, or local:PATH")
    urls = [address for address in addresses if address.startswith(("http://", "https://"))]
    for address in addresses:
        is_local = address.startswith(LOCAL) or Path(model_folder(address)).is_dir()
        if address not in urls and not is_local:
            raise ConfigError(
                f"{option}: {address!r} is neither a URL, such as http://127.0.0.1:8000/v1, nor a model to load here: "
                "local:PATH or miniature:NAME"
            )
    names_option = names_option or f"{option}-model"
    if urls and not names:
        names = [_only_model(url, names_option) for url in urls]
    if len(names) != len(urls) and (len(names) != 1 or not urls):
        raise ConfigError(
            f"{names_option}: {len(names)} names for {len(urls)} servers; give the name each "
            "server serves, in order, or one name for all"
        )
    remaining = iter(names if len(names) == len(urls) else [*names] * len(urls))
    urls_of: dict[tuple[str, bool], tuple[str, ...]] = {}  # keyed by (name, is served)
    for address in addresses:
        if address in urls:
            key = (next(remaining), True)
            urls_of[key] = (*urls_of.get(key, ()), address)
        else:
            urls_of[address.removeprefix(LOCAL), False] = ()
    return tuple(ModelSpec(name, urls) for (name, _), urls in urls_of.items())


def _only_model(url: str, names_option: str) -> str:
    """Return the name of the only model that a server has; raise ConfigError if it has none or several."""
    from fapo.inference.served_models import served_models  # here, because most commands name the model

    try:
        names = served_models(url)
    except EngineError as error:
        raise ConfigError(
            f"{names_option} is missing, and the server does not say which models it has: {error}"
        ) from None
    if len(names) != 1:
        raise ConfigError(f"{names_option} is missing: {url} has {', '.join(names) or 'no models'}; give one name")
    return names[0]


def model_spec(addresses: Sequence[str], name: str, option: str, name_option: str = "") -> ModelSpec:
    """Parse the addresses of one model.

    Args:
        addresses: URLs of its servers, or one model for this process, as for `model_specs`.
        name: Name of the model that the servers serve; empty for a model in this process, and for servers of one model.
        option: Command-line option that gives the addresses, for messages.
        name_option: Command-line option that gives the name, for messages.

    Returns:
        The model.

    Raises:
        ConfigError: As for `model_specs`, and if the addresses belong to several models.
    """
    models = model_specs(addresses, (name,) if name else (), option, name_option)
    if len(models) > 1:
        raise ConfigError(
            f"{option}: several different models, must be one; several URLs of one model are its replicas"
        )
    return models[0]
