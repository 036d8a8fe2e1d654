"""`fapo bench`: score a judge on labelled solutions."""

from __future__ import annotations

from fapo.cli.app import app, console, print_result
from fapo.cli.progress import bar_by_name, progress_bars
from fapo.cli.verdicts import print_notes
from fapo.config.options import AsJson, Options, Quiet
from fapo.evaluation.judge_benchmarks.settings import BenchSettings


@app.command("bench")
def bench(*, settings: Options[BenchSettings], as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Score a judge, or a file of its predictions, on labelled solutions as in ProcessBench.

    The judge may also be flag-all or flag-none, which read nothing. Several prompts or files are compared.
    """
    from fapo.evaluation.judge_benchmarks import output
    from fapo.evaluation.judge_benchmarks.run import run_benchmark, score

    with progress_bars(disable=quiet or not settings.judge or bool(settings.rules)) as bars:
        rows, contexts = run_benchmark(settings, bar_by_name(bars))
    if settings.compares:
        from fapo.evaluation.judge_benchmarks import comparison_output as comparison
        from fapo.evaluation.judge_benchmarks.compare import compare_judges

        found = compare_judges(settings.benchmark, rows, contexts)
        if settings.table:
            comparison.write_table(settings.table, found)
        if settings.plot:
            comparison.write_plot(settings.plot, found)
        print_result(comparison.as_text(found), comparison.as_json(found), as_json)
    else:
        found_one = score(settings, rows, contexts[0])
        print_result(output.as_table(found_one, contexts[0]), output.as_json(found_one, contexts[0]), as_json)
    if line := output.cache_line(contexts):
        console.line(line)
    if not settings.rules:
        print_notes(output.verdict_counts(contexts))
