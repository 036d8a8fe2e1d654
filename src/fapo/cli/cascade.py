"""`fapo cascade`: the thresholds of a cascade of two judges."""

from __future__ import annotations

from fapo.cli.app import app, print_json
from fapo.config.options import AsJson, Options
from fapo.evaluation.judge_benchmarks.settings import CascadeSettings


@app.command("cascade")
def cascade(*, settings: Options[CascadeSettings], as_json: AsJson = False) -> None:
    """Choose the thresholds of a cascade of two judges on labelled solutions, for a bound on its errors.

    The thresholds are chosen on a random half of the problems and measured on the other half. The last line is for the
    [judge] table of a config.
    """
    from rich.console import Console

    from fapo.evaluation.judge_benchmarks import cascade_output as output
    from fapo.evaluation.judge_benchmarks.cascade import choose

    found = choose(settings)
    if as_json:
        print_json(output.as_json(found))
        return
    Console(width=240).print(output.as_table(found))
    for line in output.notes(found):
        print(f"* {line}")
    print(f"\n{output.toml_line(found)}")
