"""MkDocs hook: the search works in pages that are opened from disk, without a script from the network."""

from __future__ import annotations

import posixpath
from typing import Any

SHIM = "https://unpkg.com/iframe-worker/shim"
"""What Material's plugin `offline` would load."""
OURS = "javascripts/worker.js"


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Our own stand-in for a worker, in place of Material's."""
    return output.replace(SHIM, posixpath.relpath(OURS, posixpath.dirname(page.file.dest_uri) or "."))


def on_post_template(output_content: str, template_name: str, **_: Any) -> str:
    """The same for 404.html, which a server may show anywhere."""
    return output_content.replace(SHIM, f"/{OURS}")
