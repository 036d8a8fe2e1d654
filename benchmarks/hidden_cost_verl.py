"""Measure what judging adds to a training step under verl: FAPO against the same run without a judge.

.venv-verl/bin/python -m benchmarks.hidden_cost_verl [--rounds 2] [--steps 2] [--prompts 16] [--slots 4] [--seconds 18]
    [--median 0.35]

Each turn is a complete run of `fapo train --engine verl` on the miniature, on Ray without an accelerator
(tests/verl/cpu), in a separate process. Its first step is not counted. The learning rate changes no weight and the
judge finds no flaw, so that both sides train on rollouts of the same policy with equal rewards. The judge
(measuring/slow_judge.py) is a process that sleeps.

The rollouts of a step are delayed until they take --seconds. The judge is so slow that the correct rollouts keep its
slots busy for 18/42 of that time, the proportion of the paper. Rollouts end at log-normal times, as long reasoning
does; --median is the time of the median rollout as a fraction of the longest. Each rollout is judged as soon as it
ends, when the reward loop of verl asks for its score. The update is not delayed. It takes less than 33/42 of the
rollouts, so that judging adds a larger fraction to a step here than in the paper.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import tempfile
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.measuring.slow_judge import JUDGE, MEAN, ROLLOUT, Behaviour, slow_judge
from benchmarks.measuring.turns import PARTS, in_turn, machine, ratios, spread
from tests.support.verl_runs import rows, run

STILL = ("optim.learning_rate=1e-30", "optim.weight_decay=0.0", "data.validation=", "validation.save_every=1000")
SIDES = ("baseline", "fapo")
STRETCH = 2.5
"""Expected maximum of about a hundred standard normal draws."""


def steps_of(settings: list[str], num_steps: int, pace: str) -> tuple[list[dict[str, Any]], list[Any]]:
    """Train and return, for the steps after the first, the metrics with the `seconds` of the step, and the rollouts."""
    with tempfile.TemporaryDirectory() as name:
        env = {"FAPO_TEST_PACE": pace, "OMP_NUM_THREADS": "2"}
        run(Path(name), *STILL, *settings, steps=num_steps + 1, env=env, verl={"data.max_prompt_length": 32})
        metrics = [row for row in rows(Path(name), "metrics") if row["kind"] == "train"]
        rollouts = [row for row in rows(Path(name), "rollouts") if row["step"] > 1]
    pairs = itertools.pairwise(metrics)
    return [later | {"seconds": later["seconds"] - before["seconds"]} for before, later in pairs], rollouts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="turns of each side (default 2)")
    parser.add_argument("--steps", type=int, default=2, help="counted steps of a turn (default 2)")
    parser.add_argument("--seconds", type=float, default=18.0, help="duration of the rollouts of a step (default 18)")
    parser.add_argument(
        "--median", type=float, default=0.35, help="fraction of the time after which half have ended (default 0.35)"
    )
    parser.add_argument("--prompts", type=int, default=16, help="prompts of a step, with 8 rollouts each (default 16)")
    parser.add_argument("--slots", type=int, default=4, help="judgements under way at once (default 4)")
    given = parser.parse_args()
    size = [f"rollout.num_prompts={given.prompts}", "rollout.group_size=8", "data.limit="]
    baseline = [*size, "reward.kind=outcome", "judge="]
    measured, rollouts = steps_of(baseline, given.steps, "0 0 0")
    right = {(row["step"], row["problem_id"], row["response"]) for row in rollouts if row["correct"]}
    num_right = len(right) / given.steps
    longest = max(0.0, given.seconds - statistics.median(row["time/rollout"] for row in measured))
    sigma = -math.log(given.median) / STRETCH
    pace = f"{given.median * longest} {sigma} {longest}"
    scale = given.seconds * JUDGE / ROLLOUT * given.slots / num_right / MEAN
    with slow_judge(1, given.slots, behaviour=Behaviour(pace=scale)) as urls:
        judge = f'judge={{kind="served",model="genrm",urls={json.dumps(urls)},template="compact",concurrency=1024}}'
        settings = {"baseline": baseline, "fapo": [*size, "judge=", judge]}
        sides = {s: lambda _, s=s: steps_of(settings[s], given.steps, pace) for s in SIDES}
        results = in_turn(sides, given.rounds)
        with urllib.request.urlopen(urls[0].removesuffix("/v1") + "/done") as answer:
            num_asked = json.load(answer)["requests"] / given.rounds / (given.steps + 1)
    print(
        f"{8 * given.prompts} rollouts a step, delayed up to {longest:.1f} s, median {given.median * longest:.1f} s; "
        f"{num_right:g} distinct solutions to judge, {num_asked:g} questions, {given.slots} at once, "
        f"{scale * MEAN:.2f} s each on average; "
        f"{given.steps} steps, {given.rounds} rounds; median seconds a step"
    )
    totals = {}
    for side, turns in results.items():
        rows = [row for metrics, _ in turns for row in metrics]
        parts = {part: statistics.median(row[f"time/{part}"] for row in rows) for part in PARTS}
        totals[side] = [sum(row["seconds"] for row in metrics) for metrics, _ in turns]
        length = statistics.mean(row["num_tokens"] for _, rollouts in turns for row in rollouts)
        whole = statistics.median(row["seconds"] for row in rows)
        text = ", ".join(f"{part} {value:.2f}" for part, value in parts.items())
        print(f"{side:10s} step {whole:.2f}: {text}; {length:.2f} tokens a rollout")
    print(f"fapo / baseline, step {spread(ratios(totals['fapo'], totals['baseline']), 3)}")
    print(machine("fapo", "verl", "ray", "transformers", "torch"))


if __name__ == "__main__":
    if not find_spec("verl"):
        print(
            "verl is not installed here. Call make test-verl, then .venv-verl/bin/python -m benchmarks.hidden_cost_verl"
        )
    else:
        main()
