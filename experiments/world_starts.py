"""Measure the start of a policy on a problem set of the miniature, and a judge on its correct solutions.

python -m experiments.world_starts SET POLICY JUDGE [--limit 512]

SET is a name such as exposed-validation; POLICY and JUDGE are folders of models, or names such as miniature:policy.
The policy answers each problem once, at temperature 1. The oracle of the set knows the truth.
"""

from __future__ import annotations

import argparse
import asyncio

from fapo.config.sampling import Sampling
from fapo.config.schema import LocalJudge
from fapo.data.miniature.oracle import examine, ground_truth, is_answer_correct
from fapo.data.miniature.sets import problems
from fapo.data.miniature.world import parse
from fapo.evaluation.intervals import wilson_interval
from fapo.inference.models import model_folder
from fapo.inference.transformers_model import LocalModel
from fapo.judge.from_config import open_judge
from fapo.types import Rollout, Verdict


async def verdicts_of(judge: str, rollouts: list[Rollout]) -> list[Verdict]:
    """Return the verdicts of a GenRM of the miniature."""
    async with open_judge(LocalJudge(model=judge, template="compact", max_tokens=80, temperature=0.6)) as ask:
        return await ask(rollouts)


def rate(number: int, total: int) -> str:
    """Return a rate with its numbers and its 95 % interval."""
    if not total:
        return "none"
    low, high = wilson_interval(number, total)
    return f"{number} of {total}, {number / total:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", help="problem set, without miniature:")
    parser.add_argument("policy")
    parser.add_argument("judge")
    parser.add_argument("--limit", type=int, default=512, help="number of problems (default 512)")
    given = parser.parse_args()
    asked = problems(f"miniature:{given.set}", given.limit)
    policy = LocalModel.load(
        model_folder(given.policy), Sampling(max_tokens=64, temperature=1.0), batch_size=512, seed=0
    )
    answers = policy.generate([[{"role": "user", "content": problem.text}] for problem in asked])
    rollouts = [Rollout(problem, answer.text) for problem, answer in zip(asked, answers, strict=True)]
    tasks = [parse(problem.text) for problem in asked]
    correct = [r for r, task in zip(rollouts, tasks, strict=True) if is_answer_correct(task, r.response)]
    flawed = [ground_truth(rollout).flawed for rollout in correct]
    complete = [not examine(parse(r.problem.text), r.response).flawed for r in correct]
    print("correct answers:", rate(len(correct), len(rollouts)))
    print("flawed, of the correct:", rate(sum(flawed), len(correct)))
    print("every line written and right, of the correct:", rate(sum(complete), len(correct)))
    num_operations = sum(len(task.operations) for task in tasks)
    print(
        "lines for operations:", rate(min(num_operations, sum(r.response.count("=") for r in rollouts)), num_operations)
    )
    found = asyncio.run(verdicts_of(given.judge, correct))
    pairs = [(truth, verdict.flawed) for truth, verdict in zip(flawed, found, strict=True)]
    print("flagged, of the flawed:", rate(pairs.count((True, True)), sum(flawed)))
    print("flagged, of the fully correct:", rate(pairs.count((False, True)), len(flawed) - sum(flawed)))
    print("no verdict:", rate(sum(verdict is None for _, verdict in pairs), len(pairs)))


if __name__ == "__main__":
    main()
