"""Text from language models: clients of OpenAI-compatible servers, models in this process, and a response cache."""

from typing import TYPE_CHECKING, Any

from fapo.inference.client import ChatClient
from fapo.inference.response_cache import ResponseCache

if TYPE_CHECKING:
    from fapo.inference.transformers_model import LocalModel

__all__ = ["ChatClient", "LocalModel", "ResponseCache"]


def __getattr__(name: str) -> Any:
    """Import LocalModel at its first use, because it imports torch."""
    if name == "LocalModel":
        from fapo.inference.transformers_model import LocalModel

        return LocalModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
