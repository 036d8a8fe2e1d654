"""`fapo critic` and `fapo critiques`: data to train a judge on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from fapo.cli.app import Several, app, console
from fapo.cli.progress import bar_by_name, progress_bars


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
    from fapo.training.critic_data.build import build
    from fapo.training.critic_data.card import summary
    from fapo.training.critic_data.settings import CriticSettings

    config = CriticSettings(
        problems=problems,
        policy=policy,
        policy_model=policy_model,
        teacher=teacher,
        teacher_model=teacher_model,
        out=out,
        samples=samples,
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
    with progress_bars() as bars:
        card = build(config, bar_by_name(bars))
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
    from fapo.training.critic_data.critiques import write_critiques
    from fapo.training.critic_data.settings import CritiquesSettings

    config = CritiquesSettings(
        data=data,
        judge=judge,
        model=model,
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
    with progress_bars() as bars:
        kept = write_critiques(config, bar_by_name(bars))
    print(kept)
    console.print(f"data: {out}", highlight=False, soft_wrap=True)
