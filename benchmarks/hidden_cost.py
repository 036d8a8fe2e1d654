"""Measure what judging adds to a training step under TRL: FAPO against the same run without a judge.

python -m benchmarks.hidden_cost [--quick] [--rounds 3] [--steps 2] [--seconds 3] [--slots 32]
    [--picture FILE] [KEY=VALUE ...]

All sides have the same rollouts of the miniature's policy, because the learning rate changes no weight, and the same
rewards, because the judge finds no flaw. Their losses are therefore equal. Sides:

    baseline       no judge
    judged after   all correct rollouts go to the judge when the last rollout of the batch is complete
    judged ahead   each goes to the judge as soon as it is complete, as `fapo train` does with a served judge

The judge (measuring/slow_judge.py) is a separate process that sleeps. It is so fast that the correct rollouts of a step
keep its slots busy for 18/42 of the time in which they are generated. This is the proportion of the paper: rollouts 42,
judge 18, update 33. Three tables:

1. As on accelerators, where the model leaves the processor idle. Each forward pass sleeps until the rollouts of a step
   take --seconds; a pass with gradients sleeps three times as long, so that the update takes 33/42 of that. One update
   for each batch of rollouts.
2. The same with four updates (the paper has sixteen). TRL then computes the log-probabilities of the rollouts, a
   quarter of the work of the update, before it asks for rewards.
3. Without sleep: the client runs on the cores that generate the rollouts.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import statistics
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from benchmarks.measuring.slow_judge import JUDGE, MEAN, ROLLOUT, UPDATE, Behaviour, slow_judge
from benchmarks.measuring.turns import PARTS, in_turn, machine, ratios, spread
from benchmarks.training import CONFIG, STILL, Lean, Recorder, made
from fapo.config.reader import load
from fapo.config.schema import Config
from fapo.rewards.from_config import make_scorer
from fapo.rewards.scorer import PolicyScorer
from fapo.training.datasets import TRAIN, Example, load_sets
from fapo.trl.judge_while_generating import judge_ahead
from fapo.trl.reward import FlawedAwareReward

SIDES = ("baseline", "judged after", "judged ahead")


@dataclass(frozen=True)
class Pace:
    """Additional time for which a simulated device is busy."""

    forward: float = 0.0
    """Seconds added to each forward pass of the generation."""
    row: float = 0.0
    """Seconds added for each rollout in a forward pass of the update; three times as many with gradients."""


class Paced(Lean):
    """Our trainer on a slower device. The first step, which is not counted, is not slowed down."""

    pace = Pace()
    num_forwards = 0
    num_rows = 0
    """Number of rollouts in forward passes of the update so far; with gradients each counts three times."""
    marks: list[dict[str, tuple[float, float]]]
    """Begin and end of the parts of each step, one entry for each batch of rollouts."""

    @contextlib.contextmanager
    def _marked(self, part: str) -> Iterator[None]:
        begin = self.marks[-1].get(part, (time.monotonic(),))[0]
        yield
        self.marks[-1][part] = (begin, time.monotonic())

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        if self._step % self.args.steps_per_generation == 0:
            self.marks.append({})
        with self._marked("step"):
            return super().training_step(*args, **kwargs)

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        self.num_forwards = 0
        hook = self.model.register_forward_pre_hook(self._work)
        with self._marked("rollout"):
            out = super()._generate(*args, **kwargs)
        hook.remove()
        return out

    def _work(self, *_: Any) -> None:
        self.num_forwards += 1
        time.sleep(self.pace.forward if self.losses else 0)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        with self._marked("score"):
            return super()._calculate_rewards(*args, **kwargs)

    def _get_per_token_logps_and_entropies(self, model: Any, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        num_rows = len(input_ids) * (3 if torch.is_grad_enabled() else 1)
        self.num_rows += num_rows
        with contextlib.nullcontext() if torch.is_grad_enabled() else self._marked("log-probabilities"):
            time.sleep(self.pace.row * num_rows if self.losses else 0)
            return super()._get_per_token_logps_and_entropies(model, input_ids, *args, **kwargs)


def turn(side: str, config: Config, examples: Sequence[Example], pace: Pace, urls: Sequence[str] = ()) -> Any:
    """Train from the start and return the trainer, with its times, and the spans in which the judge worked."""
    recorder = Recorder(config)
    scorer = make_scorer(config)
    assert isinstance(scorer, PolicyScorer)
    reward = FlawedAwareReward(scorer, recorder.record)
    trainer = made(Paced, config, reward, recorder, examples)
    trainer.pace, trainer.marks = pace, []
    if side == "judged ahead":
        judge_ahead(trainer)
    trainer.train()
    done: dict[str, Any] = {"spans": []}
    if urls:
        with urllib.request.urlopen(urls[0].removesuffix("/v1") + "/done") as answer:
            done = json.load(answer)
    return trainer, done["spans"]


def steps_of(trainer: Any) -> list[dict[str, float]]:
    """Return the seconds of each part of the counted steps; a step is a batch of rollouts with its updates."""
    updates = trainer.args.steps_per_generation
    steps = [trainer.laps[i : i + updates] for i in range(updates, len(trainer.laps), updates)]
    return [{part: sum(lap[part] for lap in laps) for part in PARTS} for laps in steps]


def median_of(trainer: Any, part: str) -> float:
    """Return the median over the counted steps of the seconds of a part."""
    return statistics.median(step[part] for step in steps_of(trainer))


def seconds_of(turns: Sequence[Any]) -> list[float]:
    """Return the seconds of all counted steps of each turn."""
    return [sum(sum(step.values()) for step in steps_of(trainer)) for trainer, _ in turns]


def compare(given: argparse.Namespace, settings: Sequence[str], seconds: float) -> dict[str, Any]:
    """Print one table; the rollouts of a step take at least `seconds`, and 0 does not slow them down."""
    baseline = load(CONFIG, [*settings, "reward.kind=outcome", "judge="])
    examples = load_sets(baseline)[TRAIN]
    first, _ = turn("baseline", baseline, examples, Pace())
    rollout, update = median_of(first, "rollout"), median_of(first, "update")
    pace = Pace()
    if seconds:
        num_rows = first.num_rows / baseline.optim.steps
        pace = Pace(
            max(0.0, seconds - rollout) / first.num_forwards, max(0.0, seconds * UPDATE / ROLLOUT - update) / num_rows
        )
        rollout = max(rollout, seconds)
    batch = baseline.rollout.num_prompts * baseline.rollout.group_size
    last = first.recorder.batches[TRAIN][-batch:]
    num_right = len({(s.rollout.problem.id, s.rollout.response) for s in last if s.correct})
    num_slots = min(given.slots, max(1, num_right // 4))
    scale = rollout * JUDGE / ROLLOUT * num_slots / num_right / MEAN
    lengths = sorted(s.rollout.num_tokens for s in last)
    with slow_judge(1, num_slots, behaviour=Behaviour(pace=scale)) as urls:
        judge = f'judge={{kind="served",model="genrm",urls={json.dumps(urls)},template="compact",concurrency=1024}}'
        fapo = load(CONFIG, [*settings, "judge=", judge])
        results = in_turn(
            {
                side: lambda _, side=side: turn(
                    side, baseline if side == "baseline" else fapo, examples, pace, () if side == "baseline" else urls
                )
                for side in SIDES
            },
            given.rounds,
        )
    title = "forward passes slowed down" if seconds else "without sleep"
    updates = baseline.optim.updates_per_batch
    print(
        f"\n{batch} rollouts a step, {updates} update{'s' * (updates > 1)}, {title}; {given.steps} steps, "
        f"{given.rounds} rounds",
        file=given.out,
    )
    print(
        f"tokens: median {lengths[len(lengths) // 2]}, 90 % {lengths[len(lengths) * 9 // 10]}, longest {lengths[-1]}; "
        f"{num_right} solutions to judge, {num_slots} at once, {scale * MEAN:.3f} s each on average",
        file=given.out,
    )
    print("median seconds a step", file=given.out)
    for side, turns in results.items():
        parts = {p: statistics.median(median_of(trainer, p) for trainer, _ in turns) for p in PARTS}
        print(f"{side:14s} {', '.join(f'{part} {value:.2f}' for part, value in parts.items())}", file=given.out)
    base = seconds_of(results["baseline"])
    for side in SIDES[1:]:
        print(f"{side} / baseline, step {spread(ratios(seconds_of(results[side]), base), 3)}", file=given.out)
    losses = [[trainer.losses for trainer, _ in turns] for turns in results.values()]
    apart = max(
        abs(a - b)
        for side in losses[1:]
        for one, two in zip(losses[0], side, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    print(f"losses differ by {apart:.1e} at most", file=given.out)
    return results


def draw(turns: Mapping[str, tuple[Paced, Sequence[tuple[float, float]]]], batch: int, path: Path) -> None:
    """Draw a time line of the last step of each turn."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(turns), 1, figsize=(8, 2.7 * len(turns)), sharex=True, layout="constrained")
    for axis, (title, (trainer, spans)) in zip(axes, turns.items(), strict=True):
        marks = trainer.marks[-1]
        zero, (begin, end) = marks["step"][0], marks["rollout"]
        rollouts = [s.rollout.num_tokens for s in trainer.recorder.batches[TRAIN][-batch:]]
        pass_ = (end - begin) / trainer.num_forwards
        axis.hlines(
            range(batch), begin - zero, [begin - zero + n * pass_ for n in sorted(rollouts)], "tab:blue", lw=0.8
        )
        own = sorted((a - zero, b - zero) for a, b in spans if a >= begin)
        rows = [batch * (1.06 + 0.5 * i / max(1, len(own))) for i in range(len(own))]
        axis.hlines(rows, [a for a, _ in own], [b for _, b in own], "tab:orange", lw=1)
        updates = [marks["log-probabilities"]] if "log-probabilities" in marks else []
        for first, last in [*updates, (marks["score"][1], marks["step"][1])]:
            axis.barh(batch * 1.72, last - first, left=first - zero, height=batch * 0.14, color="tab:green")
        axis.set_yticks([batch / 2, batch * 1.3, batch * 1.72], ["rollouts", "judgements", "update"])
        axis.set_title(f"{title}: {marks['step'][1] - zero:.1f} s", loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("seconds of a step")
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="16 prompts, one round of one step")
    parser.add_argument("--rounds", type=int, help="turns of each side (default 3)")
    parser.add_argument("--steps", type=int, help="counted steps of a turn (default 2)")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="duration of the rollouts of a slowed down step (default 3)"
    )
    parser.add_argument(
        "--slots", type=int, default=32, help="maximum number of judgements under way at once (default 32)"
    )
    parser.add_argument("--picture", type=Path, help="draw the time line of slowed down steps into this file")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="replace settings of the policy's config")
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 3)
    given.steps = given.steps or (1 if given.quick else 2)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore", FutureWarning)
    transformers_logging.disable_progress_bar()
    given.out = sys.stdout
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        settings = [*given.settings, *STILL, f"optim.steps={given.steps + 1}", f"output={folder!r}"]
        settings += ["rollout.num_prompts=16"] if given.quick else []
        slowed = compare(given, settings, given.seconds)
        often = compare(given, [*settings, "optim.updates_per_batch=4"], given.seconds)
        compare(given, settings, 0.0)
    if given.picture:
        rollout = load(CONFIG, settings).rollout
        turns = {f"FAPO, {side}": slowed[side][0] for side in SIDES[1:]}
        turns["FAPO, judged ahead, four updates"] = often["judged ahead"][0]
        draw(turns, rollout.num_prompts * rollout.group_size, given.picture)
    print(machine("fapo", "trl", "transformers", "torch"), f"{torch.get_num_threads()} threads", sep=", ")


if __name__ == "__main__":
    main()
