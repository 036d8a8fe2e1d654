"""`fapo template`: the prompt of a judge from finished prompts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from fapo.cli.app import app, console
from fapo.config.options import AsJson, Options


@dataclass(frozen=True, kw_only=True)
class LearnSettings:
    """Finished prompts, and the template that is recovered from them."""

    action: Positional[Literal["learn"]]
    """learn is the only action."""
    rows: Positional[str]
    """JSONL, JSON or Parquet file, or Hugging Face id, with a column `prompt` or `messages`."""
    out: Path
    """File for the template."""


@app.command("template")
def template(*, settings: Options[LearnSettings], as_json: AsJson = False) -> None:
    """Recover the template that a released GenRM was trained with from the finished prompts of its data."""
    from fapo.data.files import check_not_overwriting, write_text
    from fapo.judge.learn_template import learn_template

    check_not_overwriting(settings.out, [settings.rows])
    learned = learn_template(settings.rows, str(settings.out))
    found = learned.template
    write_text(settings.out, f"#escape: {found.escaping}\n{found.text}\n")
    if as_json:
        print(json.dumps({"rows": learned.rows, "exact": learned.exact, "escaped_only": learned.escaped_only}))
    else:
        print(
            f"{learned.exact} of {learned.rows} prompts are given back exactly, {learned.escaped_only} but for escaping"
        )
    if learned.differing:
        console.line(f"- differs: {learned.differing}")
    console.line(f"template: {settings.out}")
