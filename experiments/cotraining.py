"""Train judge and policy together: one model with two prompts, or two models, against a judge that stays as it is.

python -m experiments.cotraining [--output runs/cotraining] [--seeds 0 1 2] [--arms fixed moving ...] [--rounds 4]

The start is one small model that can do both: the shipped GenRM of the miniature, which imitates flawed solutions and
critiques of an over-critical reviewer in mixed batches. All policies and all judges start from it. In each round the
policy is trained with FAPO for a few steps. The judge has the same weights during a round. What it is in the next
round depends on the arm:

    fixed        the weights of the start in all rounds: a judge of its own that is never trained. A policy that
                 judges itself with the weights that it has started from (judge.model = "base") has the same verdicts.
    moving       the weights of the policy at the start of the round. Nothing trains its verdicts.
    co-trained   as `moving`, but between two rounds the same weights are trained with Step-RL on the shipped labels
    first        a judge of its own, trained with as many steps and labels as that of `co-trained`, all of them before
                 the first round. It then stays as it is.

Every arm has the same steps of the policy in the same rounds, and thus the same restarts of the optimizer. The first
round is the same run in all arms but `first`. Stages that are complete are not repeated. The oracle evaluates; it
judges in no arm. The shipped labels are those of solutions of the shipped base policy, not of the policy in training.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM

from experiments.base_models.build import Example, Schedule, fit, hasty_examples, solution_examples
from experiments.base_models.models import save
from experiments.base_models.writers import Habits
from experiments.blind_judge import mean
from experiments.world_starts import verdicts_of
from fapo.config.reader import load
from fapo.config.sampling import Sampling
from fapo.config.schema import Config
from fapo.data.files import atomic_path, write_json
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.load import load_labelled
from fapo.data.miniature.oracle import ground_truth, is_answer_correct
from fapo.data.miniature.sets import BASE_FOLDER, CONFIG_FOLDER, problems
from fapo.data.miniature.world import parse
from fapo.evaluation.intervals import mean_interval
from fapo.inference.transformers_model import LocalModel
from fapo.judge.quality import PRF, flawed_positive_prf
from fapo.types import Rollout


@dataclass(frozen=True)
class Arm:
    """What the judge is, and when it is trained."""

    shared: bool = False
    """Whether policy and judge are one model."""
    trained: Literal["never", "before", "between"] = "never"
    """When the judge is trained: never, before the first round or between two rounds."""


ARMS = {
    "fixed": Arm(),
    "moving": Arm(shared=True),
    "co-trained": Arm(shared=True, trained="between"),
    "first": Arm(trained="before"),
}
"""Arms by name, in the order in which they are trained."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the study."""

    imitation: int = 300
    """Number of steps of imitation that make the start."""
    rounds: int = 4
    """Number of rounds."""
    steps: int = 10
    """Number of steps of the policy in a round."""
    prompts: int = 32
    """Number of problems in one step of the policy, with 8 rollouts each."""
    judge_steps: int = 5
    """Number of steps of the judge between two rounds."""
    judge_prompts: int = 24
    """Number of labelled solutions in one step of the judge, with 8 critiques each."""
    limit: int = 256
    """Number of problems of each validation set."""
    judged: int = 512
    """Number of labelled solutions of miniature:critic-test that a judge reads before a round."""
    tested: int = 1024
    """Number of problems of each test set, which the policy answers once after the last round."""

    @property
    def num_labels(self) -> int:
        """Number of labels that `judge_steps` use, each in one step."""
        return self.judge_steps * self.judge_prompts


@dataclass(frozen=True)
class Round:
    """Measurements of one round of one arm. Rates are in [0, 1]."""

    accuracy_before: float
    """Accuracy of the policy at the start of the round."""
    reliable_before: float
    """Rate of correct answers with correct reasoning at the start of the round."""
    accuracy: float
    """Accuracy of the policy at the end of the round."""
    reliable_accuracy: float
    """Rate of correct answers with correct reasoning at the end of the round."""
    harder: float
    """Accuracy on harder problems at the end of the round."""
    true_fp_ratio: float
    """Rate of flawed answers among the correct ones at the end of the round."""
    recall: float
    """Rate of flagged rollouts among the flawed correct ones of the training."""
    false_positive_rate: float
    """Rate of flagged rollouts among the fully correct ones of the training."""
    youden_j: float
    """Youden's J of the judge on the correct rollouts of the training."""
    test_j: float
    """Youden's J of the judge on labelled solutions of the shipped base policy."""
    test_f1: float
    """F1 of the judge on them."""
    labels: int
    """Number of labels that the training of the judge used after the round, or before the first one."""
    seconds: float
    """Processor time of the round, with this training, in seconds."""


@dataclass(frozen=True)
class End:
    """Measurements of one arm after the last round, on the test sets. Rates are in [0, 1]."""

    accuracy: float
    """Accuracy of the policy."""
    reliable_accuracy: float
    """Rate of correct answers with correct reasoning."""
    true_fp_ratio: float
    """Rate of flawed answers among the correct ones."""
    harder: float
    """Accuracy on harder problems."""
    youden_j: float
    """Youden's J of the judge on the correct rollouts of the last round."""


SHOWN = {
    "accuracy": "accuracy",
    "right and fully correct": "reliable_accuracy",
    "accuracy, harder": "harder",
    "true FP ratio": "true_fp_ratio",
    "J on rollouts": "youden_j",
    "recall": "recall",
    "false positive rate": "false_positive_rate",
    "J on critic-test": "test_j",
}
"""Column -> field of Round."""
COMPARED = {
    "accuracy": "accuracy",
    "right and fully correct": "reliable_accuracy",
    "true FP ratio": "true_fp_ratio",
    "accuracy, harder": "harder",
    "J on rollouts": "youden_j",
}
"""Column -> field of End."""


def both_examples(seed: int) -> Iterator[list[Example]]:
    """Yield batches of 32 flawed solutions, as the shipped policy imitates, 24 hasty critiques and 6 exercises."""
    solutions = solution_examples(seed, Schedule(0, 32, 0), Habits())
    critiques = hasty_examples(seed + 1, Schedule(0, 30, 0, num_exercises=6))
    for solved, reviewed in zip(solutions, critiques, strict=False):
        yield solved + reviewed


def make_start(folder: Path, steps: int) -> Path:
    """Write the model that solves and judges into a folder, unless the folder exists, and return the folder."""
    if not folder.exists():
        shipped = BASE_FOLDER / "genrm"
        model = AutoModelForCausalLM.from_pretrained(shipped, use_safetensors=True, trust_remote_code=False)
        schedule = Schedule(steps=steps, batch_size=62, learning_rate=1e-3)
        fit(model, both_examples(0), schedule, lambda step, loss: print(f"start: step {step}, loss {loss:.3f}"))
        with atomic_path(folder) as draft:
            save(model, draft)
    return folder


def trained(config: Config) -> tuple[Path, float]:
    """Train, unless the run is complete; return its folder and the processor time, in seconds."""
    from fapo.trl.train import train

    folder = Path(config.output) / config.name
    cost = folder / "processor_time.json"
    if not cost.exists():
        before = time.process_time()
        if not (folder / "model").exists():
            train(config, resume=folder.exists())
        write_json(cost, time.process_time() - before)
    return folder, float(cost.read_text())


def train_policy(
    folder: Path, name: str, policy: Path, judge: Path | str, seed: int, sizes: Sizes, *more: str
) -> tuple[Path, float]:
    """Train a policy for one round; return its run folder and the processor time, in seconds.

    Args:
        folder: Folder of the run folder.
        name: Name of the run.
        policy: Folder of the policy at the start.
        judge: Value of `judge.model`.
        seed: Seed of the run.
        sizes: Sizes of the study.
        *more: Overrides of the config that come last.
    """
    changed = (
        *(f"name={name}", f"output={folder}", f"seed={seed}", f"model.path={policy}", f"judge.model={judge}"),
        *(f"optim.steps={sizes.steps}", "optim.warmup_steps=2", f"rollout.num_prompts={sizes.prompts}"),
        *(f"validation.every={sizes.steps}", f"validation.limit={sizes.limit}"),
        f"validation.save_every={sizes.steps}",
    )
    return trained(load(CONFIG_FOLDER / "policy.toml", (*changed, *more)))


def train_judge(folder: Path, name: str, judge: Path, seed: int, sizes: Sizes, *more: str) -> tuple[Path, float]:
    """Train a judge on the shipped labels, with arguments as in `train_policy`."""
    changed = (
        *(f"name={name}", f"output={folder}", f"seed={seed}", f"model.path={judge}"),
        *(f"optim.steps={sizes.judge_steps}", "optim.warmup_steps=2", f"rollout.num_prompts={sizes.judge_prompts}"),
        f"validation.save_every={sizes.judge_steps}",
    )
    config = load(CONFIG_FOLDER / "genrm.toml", (*changed, *more))
    return trained(replace(config, data=replace(config.data, validation={})))


@cache
def known_quality(judge: Path, num: int) -> PRF:
    """Return how good a judge is on the labelled solutions of the shipped base policy."""
    solutions = load_labelled("miniature:critic-test", limit=num)
    rollouts = [Rollout(solution.problem, "\n".join(solution.steps)) for solution in solutions]
    verdicts = asyncio.run(verdicts_of(str(judge), rollouts))
    truth = [solution.error_step is not None for solution in solutions]
    return flawed_positive_prf([verdict.flawed for verdict in verdicts], truth)


def correct_rollouts(folder: Path) -> list[dict[str, Any]]:
    """Return the correct rollouts of the training of a run, which its judge has read."""
    return [row for row in read_jsonl(folder / "rollouts.jsonl") if row["split"] == "train" and row["correct"]]


def is_flawed(row: Mapping[str, Any]) -> bool:
    """Return whether a rollout is flawed by the oracle."""
    return row["truth"]["error_step"] is not None


def rollout_quality(rows: Sequence[Mapping[str, Any]]) -> PRF:
    """Return how good a judge was on rollouts, by the oracle."""
    return flawed_positive_prf([row["flawed"] for row in rows], [is_flawed(row) for row in rows])


def policy_run(output: Path, name: str, seed: int, n: int) -> Path:
    """Return the run folder of the policy of an arm in round `n`; most arms have the first round in common."""
    is_common = n == 1 and ARMS[name].trained != "before"
    return output / (f"start-{seed}" if is_common else f"{name}-{seed}") / f"policy-{n}"


def train_arm(output: Path, name: str, seed: int, sizes: Sizes) -> list[Round]:
    """Train policy and judge in rounds.

    Args:
        output: Folder of the study, with the start in `start`.
        name: Name of the arm.
        seed: Seed of the runs; round and seed decide the order of the problems, so that arms are paired.
        sizes: Sizes of the study.

    Returns:
        Measurements of each round.
    """
    arm, folder = ARMS[name], output / f"{name}-{seed}"
    policy = judge = output / "start"
    found, labels, more = [], 0, 0.0
    if arm.trained == "before":
        labels = sizes.num_labels * (sizes.rounds - 1)
        longer = replace(sizes, judge_steps=sizes.judge_steps * (sizes.rounds - 1))
        judge_run, more = train_judge(folder, "judge-0", judge, 100 * seed, longer)
        judge = judge_run / "model"
    for n in range(1, sizes.rounds + 1):
        drawn = 100 * seed + n
        record = folder / f"round-{n}.jsonl"
        place = policy_run(output, name, seed, n)
        run, seconds = train_policy(place.parent, place.name, policy, judge, drawn, sizes)
        new_judge = run / "model" if arm.shared else judge
        if arm.trained == "between" and n < sizes.rounds:
            labels = sizes.num_labels
            judge_run, more = train_judge(folder, f"judge-{n}", new_judge, drawn, sizes)
            new_judge = judge_run / "model"
        if not record.exists():
            rates, known = rollout_quality(correct_rollouts(run)), known_quality(judge, sizes.judged)
            first, *_, last = (row for row in read_jsonl(run / "metrics.jsonl") if row["kind"] == "validation")
            measured = Round(
                accuracy_before=first["validation/accuracy"],
                reliable_before=first["validation/reliable_accuracy"],
                accuracy=last["validation/accuracy"],
                reliable_accuracy=last["validation/reliable_accuracy"],
                harder=last["harder/accuracy"],
                true_fp_ratio=last["validation/true_fp_ratio"],
                recall=rates.recall,
                false_positive_rate=rates.fp / max(1, rates.fp + rates.tn),
                youden_j=rates.youden_j,
                test_j=known.youden_j,
                test_f1=known.f1,
                labels=labels,
                seconds=seconds + more,
            )
            write_jsonl(record, [asdict(measured)])
        found += [Round(**row) for row in read_jsonl(record)]
        policy = new_judge if arm.shared else run / "model"
        judge, labels, more = new_judge, 0, 0.0
    return found


def answered(policy: Path, name: str, num: int) -> tuple[float, float]:
    """Let a policy answer problems once, at temperature 1.

    Args:
        policy: Folder of the policy.
        name: Name of the problem set, with its prefix.
        num: Number of problems, the first ones.

    Returns:
        Rate of correct answers, and rate of correct answers with correct reasoning.
    """
    asked = problems(name, num)
    model = LocalModel.load(policy, Sampling(max_tokens=64, temperature=1.0), batch_size=512, seed=0)
    answers = model.generate([[{"role": "user", "content": problem.text}] for problem in asked])
    rollouts = [Rollout(problem, answer.text) for problem, answer in zip(asked, answers, strict=True)]
    correct = [r for r in rollouts if is_answer_correct(parse(r.problem.text), r.response)]
    return len(correct) / num, sum(not ground_truth(r).flawed for r in correct) / num


def tested(policy: Path, youden_j: float, num: int) -> End:
    """Return the measurements of a trained policy.

    Args:
        policy: Folder of the policy.
        youden_j: Youden's J of its judge on the last rollouts of the training.
        num: Number of problems of each test set.
    """
    accuracy, reliable = answered(policy, "miniature:test", num)
    harder, _ = answered(policy, "miniature:test-harder", num)
    return End(accuracy, reliable, 1 - reliable / (accuracy or 1), harder, youden_j)


def end_of(output: Path, name: str, seed: int, rounds: Sequence[Round], num: int) -> End:
    """Return the measurements of an arm after its last round.

    Args:
        output: Folder of the study.
        name: Name of the arm.
        seed: Seed of the runs.
        rounds: Measurements of its rounds.
        num: Number of problems of each test set.
    """
    last = len(rounds)
    record = output / f"{name}-{seed}" / f"end-{last}.jsonl"
    if not record.exists():
        found = tested(policy_run(output, name, seed, last) / "model", rounds[-1].youden_j, num)
        write_jsonl(record, [asdict(found)])
    (row,) = read_jsonl(record)
    return End(**row)


def differences(arm: Mapping[int, End], control: Mapping[int, End], field: str) -> str:
    """Return the paired difference of two arms in one field.

    Args:
        arm: Measurements of the arm by seed.
        control: Measurements of the other arm by seed.
        field: Name of the field of End.

    Returns:
        Mean difference over the seeds that both have, with its 95 % interval if there are two.
    """
    values = [getattr(arm[seed], field) - getattr(control[seed], field) for seed in arm if seed in control]
    low, high = mean_interval(values)
    text = f"{sum(values) / len(values):+.3f}"
    return text if low != low else f"{text} ({low:+.3f} to {high:+.3f})"


def print_tables(found: Mapping[str, Mapping[int, Sequence[Round]]], ends: Mapping[str, Mapping[int, End]]) -> None:
    """Print the measurements of each round, those after the last round, and their differences to the arm "fixed".

    Args:
        found: Rounds by arm and seed.
        ends: Measurements after the last round by arm and seed.
    """
    console = Console(width=400)
    table = Table("arm", "seeds", "round", "accuracy before", *SHOWN, "labels", "processor s", box=box.MARKDOWN)
    for name, runs in found.items():
        for number, of_seeds in enumerate(zip(*runs.values(), strict=True), start=1):
            cells = [mean([getattr(one, field) for one in of_seeds]) for field in ("accuracy_before", *SHOWN.values())]
            labels, seconds = (sum(getattr(one, f) for one in of_seeds) / len(of_seeds) for f in ("labels", "seconds"))
            table.add_row(name, str(len(runs)), str(number), *cells, f"{labels:.0f}", f"{seconds:.0f}")
    console.print(table)
    print_ends(console, ends, COMPARED, "fixed")


def print_ends(
    console: Console, ends: Mapping[str, Mapping[int, End]], columns: Mapping[str, str], control: str
) -> None:
    """Print the measurements after the training, and their differences to one arm.

    Args:
        console: Where to print.
        ends: Measurements by arm and seed.
        columns: Column -> field of the measurements.
        control: Arm from which the others differ; without its measurements there is no second table.
    """
    table = Table("after the last step", "seeds", *columns, box=box.MARKDOWN)
    for name, of_arm in ends.items():
        cells = [mean([getattr(one, field) for one in of_arm.values()]) for field in columns.values()]
        table.add_row(name, str(len(of_arm)), *cells)
    console.print(table)
    if control not in ends:
        return
    table = Table(f"minus {control}, same seeds", "seeds", *columns, box=box.MARKDOWN)
    for name, of_arm in ends.items():
        if name != control:
            cells = [differences(of_arm, ends[control], field) for field in columns.values()]
            table.add_row(name, str(len(of_arm)), *cells)
    console.print(table)


def main() -> None:
    """Train, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/cotraining"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the runs (default 0 1 2)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="arms (default all)")
    for f in fields(Sizes):
        option = f"--{f.name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=f.default, help=f"default {f.default}")
    given = vars(parser.parse_args())
    output, seeds, arms = Path(given.pop("output")).resolve(), given.pop("seeds"), given.pop("arms")
    sizes = Sizes(**given)
    output.mkdir(parents=True, exist_ok=True)
    make_start(output / "start", sizes.imitation)
    found: dict[str, dict[int, list[Round]]] = {name: {} for name in arms}
    ends: dict[str, dict[int, End]] = {name: {} for name in arms}
    for seed in seeds:
        for name in arms:
            found[name][seed] = train_arm(output, name, seed, sizes)
            ends[name][seed] = end_of(output, name, seed, found[name][seed], sizes.tested)
    print_tables(found, ends)


if __name__ == "__main__":
    main()
