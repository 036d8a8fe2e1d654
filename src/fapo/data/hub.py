"""The Hugging Face Hub: whether it can be reached, and whether it has a model or a data set."""

from __future__ import annotations

import functools
import logging
import os
import ssl
import urllib.error
import urllib.request
from typing import Literal

TIMEOUT = 5.0
"""Time limit of a request, in seconds."""


def use_cache_without_network() -> None:
    """Set HF_HUB_OFFLINE if the Hub cannot be reached, so that a missing id is an error in seconds, not in minutes.

    It has an effect only before `huggingface_hub` is imported, which reads the variable then.
    """
    if "HF_HUB_OFFLINE" in os.environ or not (failure := request_failure("")):
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.getLogger("fapo").warning("the Hugging Face Hub cannot be reached (%s); only its cache is used", failure)


def why_not_on_hub(kind: Literal["models", "datasets"], name: str) -> str:
    """Return why a model or a data set cannot be loaded from the Hub.

    Args:
        kind: Kind of the repository.
        name: Id, `owner/name` or `name`.

    Returns:
        The reason; empty if it can be loaded, and if the Hub did not say.
    """
    if failure := request_failure(""):
        return f"the Hugging Face Hub cannot be reached ({failure})"
    return request_failure(f"/api/{kind}/{name}")


@functools.cache
def request_failure(path: str) -> str:
    """Return why a request to the Hub fails; empty if the Hub answers. Without a path every answer will do."""
    url = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/") + path
    request = urllib.request.Request(url, method="HEAD")
    if token := os.environ.get("HF_TOKEN"):
        request.add_unredirected_header("authorization", f"Bearer {token}")
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT).close()
    except urllib.error.HTTPError as failure:
        if path and failure.code in (401, 404):  # the Hub hides whether a private repository exists
            return f"not on the Hugging Face Hub, or private (HTTP {failure.code})"
    except urllib.error.URLError as failure:
        if not isinstance(failure.reason, ssl.SSLError):  # the Hub's own client has other certificates
            return str(failure.reason)
    except OSError as failure:
        return str(failure)
    return ""
