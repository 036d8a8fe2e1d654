"""`fapo eval`: measure a policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import Positional, arg

from fapo.cli.app import Several, app, console
from fapo.cli.progress import bar_by_name, progress_bars


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
    from fapo.evaluation.policy.output import as_table, write
    from fapo.evaluation.policy.run import evaluate
    from fapo.evaluation.policy.settings import EvalSettings

    settings = EvalSettings(
        policy=policy,
        policy_model=policy_model,
        data=data,
        out=out,
        samples=samples,
        judge=judge,
        judge_model=judge_model,
        judge_template=judge_template,
        judge_votes=judge_votes,
        judge_temperature=judge_temperature,
        judge_max_tokens=judge_max_tokens,
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
        no_cache=no_cache,
    )
    with progress_bars(disable=quiet) as bars:
        answered = evaluate(settings, bar_by_name(bars))
    found = write(settings, answered)
    if as_json:
        print(json.dumps(found, indent=2, allow_nan=False))
    else:
        Console().print(as_table(settings, answered))
    console.print(f"questions: {out}, summary: {out.with_suffix('.json')}", highlight=False, soft_wrap=True)
