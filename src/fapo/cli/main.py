"""The command line: fapo train, data, plan, judge, bench, eval, critic, critiques, select, report, demo, miniature."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg
from tyro.extras import SubcommandApp

from fapo.errors import ConfigError, FapoError
from fapo.judge_options import JudgeOptions
from fapo.planner import PlanAssumptions

app = SubcommandApp()
console = Console(stderr=True)

Several = UseAppendAction[tuple[str, ...]]
Overrides = Positional[tuple[str, ...]]
Many = UseAppendAction[tuple[tuple[str, ...], ...]]
"""An option with one or more values that may come several times."""
_JUDGE = JudgeOptions()
_PLAN = PlanAssumptions()
_BENCH_JUDGE = JudgeOptions(max_tokens=4096, concurrency=32)
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
    if settings.method == "sft":
        from fapo import train_sft as trainer
    else:
        from fapo import train_trl as trainer  # type: ignore[no-redef]

    if dry_run:
        Console().print_json(data=trainer.dry_run(settings), default=str)
        return
    with _bars(disable=quiet) as bars:
        bar = bars.add_task(settings.name, total=settings.optim.steps, note="")

        def progress(step: int, _total: int, values: Mapping[str, Any]) -> None:
            bars.update(bar, completed=step, note=_note(values))

        folder = trainer.train(settings, resume=resume, progress=progress)
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
def plan(
    config: Positional[Path],
    overrides: Overrides = (),
    /,
    *,
    assumed: OmitArgPrefixes[PlanAssumptions] = _PLAN,
    as_json: Annotated[bool, arg(name="json")] = False,
) -> None:
    """Compute what a run needs: memory, tokens, FLOPs, GPU-hours and judge replicas; nothing is started.

    Args:
        config: TOML file.
        overrides: Settings that replace those of the file.
        assumed: Quantities that the config does not contain.
        as_json: Print JSON instead of tables.
    """
    from fapo.config import load
    from fapo.planner import make_plan
    from fapo.planner_output import as_json as plan_as_json
    from fapo.planner_output import as_tables

    settings = load(config, overrides)
    found = make_plan(settings, assumed)
    if as_json:
        print(json.dumps(plan_as_json(settings, assumed, found), indent=2, allow_nan=False))
        return
    for part in as_tables(settings, assumed, found):
        Console().print(part, highlight=False, markup=False)


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
    from fapo.models import chat_model, chat_models

    config = CriticConfig(
        problems=problems,
        policies=chat_models(policy, policy_model, "--policy"),
        teacher=chat_model(teacher, teacher_model, "--teacher"),
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
        card = build(config, _by_name(bars))
    print("\n".join(summary(card)))
    console.print(f"data: {out}, card: {out.with_suffix('.card.md')}", highlight=False, soft_wrap=True)


@app.command
def critiques(
    data: Positional[str],
    /,
    *,
    judge: Several,
    model: str = "",
    out: Path,
    samples: Annotated[int, arg(aliases=["-n"])] = 4,
    template: str = "locate",
    temperature: float = 1.0,
    max_tokens: int | None = None,
    limit: int | None = None,
    label_noise: float = 0.0,
    seed: int = 0,
    concurrency: int = 64,
    timeout: float = 600.0,
) -> None:
    """Make critiques for a GenRM to imitate (method=sft): sampled, and kept where they name the label.

    Interrupted and started again, it goes on where it was.

    Args:
        data: Labelled solutions: a file (.jsonl, .json, .parquet), a Hugging Face id or miniature:critic-train.
        judge: Who writes them: the URL of a server (several times: replicas), or local:PATH; the base GenRM itself for
            rejection-sampling fine-tuning, a stronger model for distillation.
        model: What the servers of --judge serve.
        out: The data: FILE.jsonl. All critiques, the rejected ones too, lie in the folder FILE.work.
        samples: Critiques of each solution; all distinct ones that name its label are kept.
        template: The judge's prompt: locate, compact or a file. Train with the same.
        temperature: Sampling temperature.
        max_tokens: Length limit of a critique; by default the server's own, 1024 for local models.
        limit: Use only the first so many solutions.
        label_noise: Share of the labels that are made wrong first.
        seed: Seed of the label noise and of local models.
        concurrency: Requests under way at once.
        timeout: Seconds a request may take.
    """
    from fapo.critic.critiques import CritiquesConfig, write_critiques
    from fapo.models import chat_model

    config = CritiquesConfig(
        data=data,
        judge=chat_model(judge, model, "--judge"),
        out=out,
        samples=samples,
        template=template,
        temperature=temperature,
        max_tokens=max_tokens,
        limit=limit,
        label_noise=label_noise,
        seed=seed,
        concurrency=concurrency,
        timeout=timeout,
    )
    with _bars() as bars:
        bar = bars.add_task("critiques", total=None, note="")
        kept = write_critiques(config, lambda done, total: bars.update(bar, completed=done, total=total))
    print(kept)
    console.print(f"data: {out}", highlight=False, soft_wrap=True)


@app.command
def select(run: Positional[Path], /, *, max_tokens: float | None = None, sets: Several = ()) -> None:
    """Choose the checkpoint of a GenRM's run: the best F1 in validation, with critiques that are short enough.

    Prints the folder of the chosen weights; before that, as a message, a row for each validation.

    Args:
        run: Run folder.
        max_tokens: Token budget: how long its critiques may be on average.
        sets: Validation set that counts; may be given several times. By default all, averaged.
    """
    from fapo.selection import as_table, candidates, choose, missed

    found = candidates(run, sets)
    chosen = choose(found, max_tokens)
    console.print(as_table(found, chosen))
    if note := missed(found, chosen, max_tokens):
        console.print(note, highlight=False, soft_wrap=True)
    print(chosen.folder)


@app.command
def bench(
    benchmark: Positional[Literal["flawed-positive", "process"]],
    /,
    *,
    data: Many = (),
    predictions: Path | None = None,
    threshold: float = 0.5,
    invalid: Literal["wrong", "flagged"] = "wrong",
    asked: OmitArgPrefixes[JudgeOptions] = _BENCH_JUDGE,
    limit: int | None = None,
    out: Path | None = None,
    as_json: Annotated[bool, arg(name="json")] = False,
) -> None:
    """Score a judge, or answers on file, on labelled solutions: rows as in ProcessBench.

    The judge may also be flag-all or flag-none, which read nothing.

    Args:
        benchmark: flawed-positive: finding the flawed among solutions with a right answer (precision, recall, F1).
            process: finding the first wrong step, by subset.
        data: JSONL or Parquet files, Hugging Face ids, or miniature:critic-test.
        predictions: Score this file of rows {id, error_step, status} or {id, scores} instead of asking a judge.
        threshold: A step with a score below is wrong.
        invalid: What no verdict counts as in flawed-positive; flagged is the public script's convention.
        limit: Only so many rows of each source, a fixed random choice.
        out: Write the answers here, in the form --predictions reads. Every critique is in the cache beside it as soon
            as it is there; started again, only what is not there is asked for.
        as_json: Print JSON instead of a table.
    """
    from fapo.benchmarks import output, run
    from fapo.benchmarks.predictions import of_rows, read_predictions, write_predictions
    from fapo.benchmarks.rows import load_rows
    from fapo.benchmarks.score import score_flawed_positive, score_process
    from fapo.data import check_not_overwriting

    sources = sum(data, ())
    if (predictions is None) == (not asked.judge):
        raise ConfigError("give either --predictions FILE or --judge (URL, local:PATH, flag-all, flag-none)")
    if predictions and out:
        raise ConfigError("--out is for answers of a --judge; --predictions are on file already")
    if out:
        check_not_overwriting(out, sources)
    process = benchmark == "process"
    rows = load_rows(benchmark, sources, limit)
    if predictions:
        found = read_predictions(predictions, rows.num_steps, threshold=threshold, located=process)
        used = threshold if any(prediction.from_scores for prediction in found.values()) else None
        context = output.Context(sources, str(predictions), of_rows(rows.counting, found), invalid, used)
    else:
        rule = len(asked.judge) == 1 and asked.judge[0] in run.RULES
        who = asked.judge[0] if rule else asked.config(out)
        with _bars() as bars:
            bar = bars.add_task(f"bench {benchmark}", total=len(rows.counting), note="")
            verdicts = run.run_judge(
                benchmark, rows, who, fresh=asked.no_cache, progress=lambda done: bars.update(bar, completed=done)
            )
        if out:
            write_predictions(out, rows.counting, verdicts, run.judge_name(who))
        untold = 0 if rule else sum(not row.problem.reference for row in rows.counting)
        context = output.Context(sources, run.judge_name(who), verdicts, invalid, num_without_reference=untold)
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
    asked: OmitArgPrefixes[JudgeOptions] = _JUDGE,
    out: Path,
    all: bool = False,
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
        out: JSONL file for the verdicts, a row for each row, in order.
        all: Judge solutions with a wrong final answer, too.
        references: Data set to look up right answers in, for rows that do not have them.
        require_box: Only a \\boxed{} counts as a final answer.
        skip_bad: Report rows that make no sense and go on, instead of stopping before anything is asked.
        quiet: No progress bar.
    """
    from fapo.audit import Plan, audit
    from fapo.tally import print_tally

    plan = Plan(files, out, asked.config(out), all, asked.no_cache, skip_bad, require_box, references)
    with _bars(disable=quiet) as bars:
        bar = bars.add_task("judging", total=None, note="")
        found = audit(plan, lambda done, rows, note: bars.update(bar, completed=done, total=rows, note=note))
    print_tally(found, Console())
    console.print(f"verdicts: {out}", highlight=False, soft_wrap=True)


@app.command(name="eval")
def evaluate(
    data: Positional[tuple[str, ...]],
    /,
    *,
    policy: Several,
    policy_model: str = "",
    out: Path,
    samples: Annotated[int, arg(aliases=["-k"])] = 1,
    judge: Several = (),
    judge_model: str = "",
    judge_template: str = "locate",
    judge_votes: int = 1,
    judge_temperature: float | None = None,
    judge_max_tokens: int = 4096,
    prompt: Path | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_tokens: int = 2048,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    require_box: bool = False,
    concurrency: int = 64,
    timeout: float = 600.0,
    no_cache: bool = False,
    as_json: Annotated[bool, arg(name="json")] = False,
    quiet: bool = False,
) -> None:
    """Evaluate a policy: sample, check final answers, and let a judge say how many right ones are flawed.

    Interrupted and started again, it goes on where it was; what failed is asked again.

    Args:
        data: Questions with known answers: .jsonl, .json or .parquet files, Hugging Face ids, miniature:SPLIT.
        policy: Who answers: URL of a server (several times: replicas), local:PATH (a folder or Hugging Face id),
            or miniature:policy.
        policy_model: What the servers of --policy serve.
        out: The table of questions, a .jsonl file; summary (.json) and cache (.cache.sqlite) come beside it.
        samples: Samples of each question.
        judge: Who looks for flaws in samples with a right answer: named as the policy is.
        judge_model: What the servers of --judge serve.
        judge_template: The judge's prompt: locate, yes_no, compact or a file.
        judge_votes: Critiques for each sample; the majority is the verdict.
        judge_temperature: Sampling temperature of the judge; by default 0 (greedy), with several votes 0.6.
        judge_max_tokens: Length limit of a critique in tokens.
        prompt: The policy's prompt, a file with {{problem}}; by default the question as it stands.
        temperature: Sampling temperature of the policy; 0 is greedy.
        top_p: Nucleus sampling; 1 is off.
        max_tokens: Length limit of a sample in tokens.
        split: Split of Hugging Face data sets, where they have several.
        limit: Only so many questions of each source, a fixed random choice.
        seed: Seed of the order of choices and of models in this process; another one asks anew.
        require_box: Only a \\boxed{} counts as a final answer, as in training.
        concurrency: Requests under way at once, of policy and judge; of a model in this process, samples in a batch.
        timeout: Seconds for one try of a request.
        no_cache: Ask anew what is in the cache.
        as_json: Print the summary as JSON instead of a table.
        quiet: No progress bar.
    """
    from fapo.evaluation.output import as_table, write
    from fapo.evaluation.plan import Plan
    from fapo.evaluation.run import evaluate
    from fapo.judges import named
    from fapo.models import chat_model

    asked = (
        named(
            judge,
            judge_model,
            options=("--judge", "--judge-model"),
            template=judge_template,
            votes=judge_votes,
            temperature=judge_temperature,
            max_tokens=judge_max_tokens,
            concurrency=concurrency,
            timeout=timeout,
            cache=out.with_suffix(".cache.sqlite"),
        )
        if judge
        else None
    )
    plan = Plan(
        policy=chat_model(policy, policy_model, "--policy"),
        data=data,
        out=out,
        k=samples,
        judge=asked,
        prompt=prompt,
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        split=split,
        limit=limit,
        seed=seed,
        require_box=require_box,
        concurrency=concurrency,
        timeout=timeout,
        fresh=no_cache,
    )
    with _bars(disable=quiet) as bars:
        answered = evaluate(plan, _by_name(bars))
    found = write(plan, answered)
    if as_json:
        print(json.dumps(found, indent=2, allow_nan=False))
    else:
        Console().print(as_table(plan, answered))
    console.print(f"questions: {out}, summary: {out.with_suffix('.json')}", highlight=False, soft_wrap=True)


@app.command
def report(
    runs: Positional[tuple[Path, ...]],
    /,
    *,
    output: Annotated[Path, arg(aliases=["-o"])] = Path("report.html"),
    rollouts: int = 100_000,
    human: Path | None = None,
) -> None:
    """Show runs as one self-contained HTML page: curves, final numbers, a browser of the rollouts, review by hand.

    Args:
        runs: Run folders.
        output: The page.
        rollouts: Rollouts on the page at most (a random share of groups, if there are more); 0 for none.
        human: Labels exported from such a page, to be held against the judge.
    """
    from fapo.report import write_report

    if not runs:
        raise ConfigError("no run folder given: fapo report RUN [RUN ...] -o page.html")
    page = write_report(list(runs), output, num_rollouts=rollouts, human=human)
    console.print(f"page: {page} ({page.stat().st_size / 1e6:.1f} MB)", highlight=False, soft_wrap=True)


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
    action: Positional[Literal["build", "study", "paper"]],
    /,
    *,
    output: Path | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
    docs: Path | None = None,
) -> None:
    """Make the miniature's base models anew, or repeat its demo over several seeds, or all of the paper's figures.

    Args:
        action: build: train the base policy and the base GenRM from nothing (the first seed counts; about half an hour
            on two cores). study: the demo for each seed, with the outcome-only GenRM beside. paper: the study and
            every other run behind the paper's figures and tables (about three hours).
        output: Folder for what is made; by default where the package keeps its base models, or runs/study, runs/paper.
        seeds: Seeds.
        docs: Folder for the page of `paper`; by default the output folder.
    """
    if action == "study":
        from fapo.miniature.study import study_jobs

        folder = output or Path("runs/study")
        _study(study_jobs(folder, seeds), folder)
        return
    if action == "paper":
        from fapo.miniature.build import IMITATION, WRITERS, imitate
        from fapo.miniature.paper import critiques_file, paper_jobs, policy_folder
        from fapo.report.paper import write_findings

        folder = output or Path("runs/paper")
        for seed in seeds:
            file, base = critiques_file(folder, seed), ("local:miniature:genrm",)
            critiques(
                "miniature:critic-train", judge=base, out=file, samples=2, template="compact", max_tokens=80, seed=seed
            )
        with _bars() as bars:
            ids = {name: bars.add_task(f"{name} base policies", total=IMITATION.steps, note="") for name in WRITERS}
            for seed in seeds:
                for writer in WRITERS:
                    imitate(
                        writer,
                        policy_folder(folder, writer, seed),
                        seed,
                        lambda name, step, loss: bars.update(ids[name], completed=step + 1, note=f"loss {loss:.3f}"),
                    )
        _run(paper_jobs(folder, seeds), folder)
        console.print(f"page: {write_findings(folder, docs or folder)}", highlight=False, soft_wrap=True)
        return
    from fapo.miniature.build import SCHEDULES, build
    from fapo.miniature.sources import FOLDER

    with _bars() as bars:
        ids = {name: bars.add_task(f"base {name}", total=s.steps, note="") for name, s in SCHEDULES.items()}

        def log(name: str, step: int, loss: float) -> None:
            bars.update(ids[name], completed=step + 1, note="kept" if math.isnan(loss) else f"loss {loss:.3f}")

        build(output or FOLDER, seeds[0], log)


def _study(jobs: Sequence[Any], output: Path) -> None:
    """Run the jobs, then write and print the report."""
    from fapo.report import overview, print_claims, print_summary, read_run, write_report

    _run(jobs, output)
    folders = [job.folder(output) for job in jobs]
    runs = [read_run(folder) for folder in folders]
    print_summary(folders, Console())
    print_claims(runs, Console())
    (output / "overview.png").write_bytes(overview(runs))
    console.print(f"page: {write_report(folders, output / 'report.html')}", highlight=False, soft_wrap=True)


def _run(jobs: Sequence[Any], output: Path) -> None:
    """Run the jobs with a bar for each."""
    from fapo.miniature.study import run_jobs

    with _bars() as bars:
        ids = {job.name: bars.add_task(job.name, total=None, note="waiting") for job in jobs}

        def watch(states: dict[str, str]) -> None:
            for job in jobs:
                done, total = job.steps(output)
                bars.update(ids[job.name], completed=done, total=total or None, note=states[job.name])

        run_jobs(jobs, output, watch)


def _bars(disable: bool = False) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=console, disable=disable)


def _by_name(bars: Progress) -> Callable[[str, int, int], None]:
    """A bar for each thing that is done."""
    ids: dict[str, Any] = {}

    def progress(what: str, done: int, total: int) -> None:
        if what not in ids:
            ids[what] = bars.add_task(what, total=total, note="")
        bars.update(ids[what], completed=done)

    return progress


def _note(values: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {values[key]:.2f}" for key, name in _SHOWN.items() if isinstance(values.get(key), float))


def main() -> None:
    """Run the command line; exit with 0 for success, 1 for a bug, 2 for an error of the user, 130 for Ctrl-C.

    An error of the user is a `FapoError`, or a refusal of the operating system from `REFUSALS`. Its message is printed
    without a traceback. Every other exception is a bug, and Python prints its traceback.
    """
    warnings.simplefilter("ignore", FutureWarning)  # what libraries have to say to each other
    try:
        app.cli(prog="fapo", description="Flawed-aware policy optimization.")
        sys.stdout.flush()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # a further Ctrl-C: no word, no tidying up
        console.print(
            "interrupted; start again with --resume (judge, bench, eval, critic, demo and study go on by themselves)"
        )
        sys.exit(130)
    except BrokenPipeError:
        if not _reader_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush at exit
        sys.exit(1)
    except FapoError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        _fail(f"{error}; {REFUSALS[error.errno]}")


def _reader_gone() -> bool:
    """Whether nobody reads what we print any more: `head`, say, has seen enough."""
    from select import POLLERR, POLLHUP, poll

    output = poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & (POLLERR | POLLHUP) for _, event in output.poll(0))


REFUSALS = {
    errno.ENOSPC: "free some space, then start again",
    errno.EDQUOT: "free some space of your quota, then start again",
    errno.EROFS: "the file system is read-only; choose another path",
    errno.EACCES: "change the permissions, or choose another path",
    errno.EPERM: "change the permissions, or choose another path",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`), or lower the concurrency",
    errno.EEXIST: "a folder is needed there; choose another path",
    errno.EISDIR: "a file is needed there; choose another path",
    errno.ENOTDIR: "a part of the path is a file; choose another path",
}
"""Error numbers of the operating system that mean a mistake of the user at any path, each with its remedy.

A missing file (ENOENT) is not among them. Code that opens a path of the user raises `DataError` or `ConfigError` when
nothing is there, with the path and the remedy; a file that fapo itself misses is a bug.
"""


def _fail(message: str) -> NoReturn:
    """Print the message of an error of the user and exit with status 2."""
    console.print(f"fapo: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
