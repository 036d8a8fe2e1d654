"""`fapo template`: the prompt of a judge from finished prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from fapo.cli.app import AsJson, app, console


@app.command("template")
def template(
    action: Positional[Literal["learn"]], rows: Positional[str], /, *, out: Path, as_json: AsJson = False
) -> None:
    """Recover the template that a released GenRM was trained with from the finished prompts of its data.

    Args:
        action: learn is the only action.
        rows: JSONL, JSON or Parquet file, or Hugging Face id, with a column `prompt` or `messages`.
        out: File for the template.
        as_json: Whether to print JSON.
    """
    from fapo.judge.learn_template import learn_template

    learned = learn_template(rows, str(out))
    found = learned.template
    out.write_text(f"#escape: {found.escaping}\n{found.text}\n", encoding="utf-8", newline="")
    if as_json:
        print(json.dumps({"rows": learned.rows, "exact": learned.exact, "escaped_only": learned.escaped_only}))
    else:
        print(
            f"{learned.exact} of {learned.rows} prompts are given back exactly, {learned.escaped_only} but for escaping"
        )
    if learned.differing:
        console.print(f"- differs: {learned.differing}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"template: {out}", highlight=False, soft_wrap=True)
