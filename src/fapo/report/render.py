"""Rendering of the pages: templates that escape every text, with what all pages share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from fapo.report.browser import ASSETS, script, script_source
from fapo.report.palette import PALETTE
from fapo.report.summary import show, show_interval
from fapo.report.text import visible


def render(template: str, scripts: Sequence[str] = (), **values: Any) -> str:
    """Return a page. Its template escapes every text and writes out invisible characters.

    Args:
        template: Name of the template, a file in `assets`.
        scripts: Names of the scripts of the page, files in `assets`, in the order in which they run.
        **values: Variables of the template.

    Returns:
        HTML.
    """
    text = script(*scripts)
    environment = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, finalize=_visible)
    return environment.get_template(template).render(
        palette=PALETTE,
        style=(ASSETS / "page.css").read_text(encoding="utf-8"),
        script=text,
        script_source=script_source(text),
        show=show,
        show_interval=show_interval,
        **values,
    )


def _visible(value: Any) -> Any:
    """Return a value of the template as text that can be seen; markup stays as it is."""
    return value if isinstance(value, Markup) else visible(value)
