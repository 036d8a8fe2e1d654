"""The models that a config or a command names: where they are, and the one place that opens them to be asked."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fapo.data.miniature import sets as miniature
from fapo.errors import ConfigError
from fapo.inference.client import ChatClient
from fapo.inference.response_cache import CachedModel, ResponseCache
from fapo.types import Complete

if TYPE_CHECKING:
    from fapo.inference.transformers_model import LocalModel


LOCAL = "local:"
LOCAL_MAX_TOKENS = 1024
"""Length limit of a completion of a model in this process, where none is set."""


def model_folder(path: str) -> str:
    """Return the folder of a model of the miniature ("miniature:NAME"); a folder or Hub id is returned as it is."""
    return str(miniature.base_model(path)) if miniature.is_miniature(path) else path


@contextlib.contextmanager
def loading(key: str, path: str) -> Iterator[None]:
    """A model that cannot be found, or would run code of its own, is a mistake in the setting `key`."""
    try:
        yield
    except (OSError, ValueError) as error:  # the two that transformers raises for a path that holds no usable model
        if "trust_remote_code" in str(error):
            raise ConfigError(
                f"{key}: {path!r} brings code of its own, which fapo does not run; use a model that transformers knows"
            ) from None
        raise ConfigError(
            f"{key}: cannot load {path!r}: {str(error).partition(chr(10))[0]}; give the folder or the Hub id of a model"
        ) from error


@dataclass(frozen=True)
class ChatModel:
    """A chat model that is asked, not trained."""

    name: str
    """The name its servers know it by, or the path of a model to load in this process."""
    urls: tuple[str, ...] = ()
    """Base addresses of its servers; none: it is loaded in this process."""

    @property
    def record_name(self) -> str:
        """Its name in caches: of a local model the path, and a mark of its files that changes when it is trained."""
        folder = Path("" if self.urls else model_folder(self.name))
        if self.urls or not folder.is_dir():
            return self.name
        files = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir())
        return f"{self.name}@{hashlib.sha256(repr(files).encode()).hexdigest()[:12]}"

    def open(
        self,
        key: str,
        *,
        temperature: float,
        max_tokens: int | None,
        top_p: float | None = None,
        seed: int | None = None,
        **client: Any,
    ) -> ChatClient | LocalModel:
        """Ready to be asked; `key` is the setting to blame if it cannot be loaded.

        The seed is for a model in this process, `client` (concurrency, timeout ...) for one that is served.
        """
        if self.urls:
            client |= {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
            return ChatClient(self.urls, self.name, **client)
        try:
            from fapo.inference.transformers_model import LocalModel
        except ImportError:
            raise ConfigError(f"{key}: {self.name} needs torch and transformers: pip install 'fapo[train]'") from None
        limits = {"max_tokens": max_tokens or LOCAL_MAX_TOKENS, "top_p": 1.0 if top_p is None else top_p}
        with loading(key, self.name):
            return LocalModel.load(model_folder(self.name), temperature=temperature, seed=seed, **limits)


def reseeded(model: ChatClient | LocalModel, seed: int) -> Complete:
    """A model in this process, with another seed; a server as it is, since it draws anew each time."""
    return model if isinstance(model, ChatClient) else replace(model, seed=seed)


def cached(
    model: ChatClient | LocalModel,
    cache: ResponseCache,
    name: str,
    settings: Mapping[str, Any],
    *,
    template: str = "",
    fresh: bool = False,
) -> CachedModel:
    """The model, answering from the cache what is on record there; with `fresh` it is asked anew all the same."""
    return CachedModel(
        model,
        cache,
        model=name,
        settings=settings,
        template=template,
        batch=1 if isinstance(model, ChatClient) else model.batch_size,
        concurrency=model.concurrency if isinstance(model, ChatClient) else 1,
        fresh=fresh,
    )


def chat_models(
    addresses: Sequence[str], names: Sequence[str], option: str, names_option: str = ""
) -> tuple[ChatModel, ...]:
    """The models that addresses name, in order of their first appearance.

    An address is a URL, or names a model for this process: local:PATH (a folder or Hub id), miniature:NAME, or a folder
    as it is. `names` are what the URLs serve: one for each URL, or one for all. Several URLs
    of one name are its replicas. Raises ConfigError, naming the option of the command line.
    """
    if not addresses:
        raise ConfigError(f"{option} is missing: give the address of a server, or local:PATH")
    urls = [address for address in addresses if address.startswith(("http://", "https://"))]
    for address in addresses:
        here = address.startswith(LOCAL) or miniature.is_miniature(address) or Path(address).is_dir()
        if address not in urls and not here:
            raise ConfigError(
                f"{option}: {address!r} is neither a URL, such as http://127.0.0.1:8000/v1, nor a model to load here: "
                "local:PATH or miniature:NAME"
            )
    if len(names) != len(urls) and (len(names) != 1 or not urls):
        raise ConfigError(
            f"{names_option or option + '-model'}: {len(names)} names for {len(urls)} servers; give the name each "
            "server serves, in order, or one name for all"
        )
    remaining = iter(names if len(names) == len(urls) else [*names] * len(urls))
    found: dict[tuple[str, bool], tuple[str, ...]] = {}
    for address in addresses:
        if address in urls:
            key = (next(remaining), True)
            found[key] = (*found.get(key, ()), address)
        else:
            found[address.removeprefix(LOCAL), False] = ()
    return tuple(ChatModel(name, urls) for (name, _), urls in found.items())


def chat_model(addresses: Sequence[str], name: str, option: str, name_option: str = "") -> ChatModel:
    """The one model that addresses name. Raises ConfigError as `chat_models` does, and for more than one."""
    models = chat_models(addresses, (name,) if name else (), option, name_option)
    if len(models) > 1:
        raise ConfigError(
            f"{option}: several different models, must be one; several URLs of one model are its replicas"
        )
    return models[0]
