"""GRPO beside FAPO with LoRA on questions with known answers, judged by an adapter on the policy's own weights.

    python -m experiments.gpu.policy --out OUT --base FOLDER --judge ADAPTER --data FILE ... [--seconds 300] [--tiny]

FILE has rows with problem and answer, as gsm8k_test.jsonl; half of the problems are for training, the other half is
measured before training and every few steps. ADAPTER is a GenRM that `genrm.py` has trained from the same base. The
arms are GRPO, and FAPO with a penalty of 1 and of 2 for a flawed positive. One more for --arms is first-error credit,
where the judge also reads wrong solutions. No oracle knows the flaws here: FP ratios are the judge's, in all arms. All
runs are made at once. A run ends by itself before a validation that would be too late. A second call continues them at
their last checkpoints. Results: OUT/policy.json and OUT/policy.txt.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.gpu import common, turns
from experiments.gpu.common import Results
from experiments.gpu.compare import Row, is_right, line_of, pairs
from experiments.gpu.genrm import PROMPT
from experiments.gpu.measured import KINDS, REWARDS, by_validation, rate_of, shown
from fapo.config import from_dict

MEMORY = 0.9
"""Fraction of the card's memory that all runs together may use."""
ARMS = ("grpo", "fapo", "fapo2")
"""Arms that are trained unless --arms names others."""
EVERY = 3
"""Steps between two validations and checkpoints."""


def reward(kind: str) -> dict[str, Any]:
    """Return the [reward] table of an arm. GRPO is FAPO without a penalty here, so that it is judged, too."""
    return {"kind": "fapo", "penalty": 0.0} if kind == "grpo" else REWARDS[kind]


def settings(kind: str, sets: dict[str, Path], given: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a run.

    Args:
        kind: One of KINDS. All runs are judged, so that all have an FP ratio; "grpo" does not use the verdicts.
        sets: Files of `common.halves`.
        given: Options of the command line.
    """
    tiny = given.tiny
    num_prompts, group, max_tokens = (2, 2, 24) if tiny else (24, 8, 320)
    return {
        "name": kind,
        "task": "policy",
        "output": given.work,
        "model": {
            "path": str(given.base),
            "dtype": "float32" if tiny else "mixed",
            "lora": {"rank": 16, "save": "adapter"},
        },
        "data": {
            "train": str(sets["train"]),
            "validation": {name: str(path) for name, path in sets.items() if name != "train"},
            "max_prompt_tokens": 200 if tiny else 1024,
            **({} if tiny else {"prompt": "boxed"}),
        },
        "rollout": {"num_prompts": num_prompts, "group_size": group, "max_tokens": max_tokens},
        "reward": reward(kind),
        "judge": {
            "kind": "adapter",
            "model": str(given.judge),
            "template": "compact" if tiny else PROMPT,
            "max_tokens": 8 if tiny else 24,
            "temperature": 0.6,
        },
        "optim": {
            "steps": 2 if tiny else given.steps,
            "learning_rate": given.rate,
            "warmup_steps": 2,
            "micro_batch_size": 2 if tiny else 16,
        },
        "validation": {"every": 1 if tiny else EVERY, "save_every": 1 if tiny else EVERY, "limit": 4 if tiny else 256},
        "trl": {"per_device_eval_batch_size": 4 if tiny else 256},
    }


def is_passed(row: Row) -> bool:
    """Return whether the answer is right and the judge finds no flaw in the solution."""
    return is_right(row) and row["status"] == "ok" and not row["flawed"]


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Return accuracy, FP ratio by the judge and length in one validation."""
    judged = [row for row in rows if row["correct"] and row["status"] == "ok"]
    return {
        "accuracy": rate_of(sum(row["correct"] for row in rows), len(rows)),
        "right_and_passed_by_the_judge": rate_of(sum(map(is_passed, rows)), len(rows)),
        "fp_ratio_by_the_judge": rate_of(sum(row["flawed"] for row in judged), len(judged)),
        "tokens": round(sum(row["num_tokens"] for row in rows) / len(rows), 2),
    }


def write(results: Results, work: Path, ends: Mapping[str, Mapping[str, Any]]) -> None:
    """Write what has been measured so far, also of unfinished runs, and the comparisons at the last common step.

    Args:
        results: File of the results.
        work: Folder of data and runs.
        ends: How the runs ended, by kind.
    """
    sets: dict[str, dict[int, dict[str, Sequence[Row]]]] = {}
    for kind in KINDS:
        found: dict[str, Any] = {**ends.get(kind, {}), "reward": reward(kind), "validation": {}}
        if (work / kind / "rollouts.jsonl").exists():
            for (split, step), rows in by_validation(work / kind).items():
                found["validation"].setdefault(split, {})[str(step)] = summary(rows)
                sets.setdefault(split, {}).setdefault(step, {})[kind] = rows
        results.values[kind] = found
    compared = []
    for split, steps in sets.items():
        common_steps = [step for step, runs in steps.items() if len(runs) == max(len(runs) for runs in steps.values())]
        by_problem = {k: {row["problem_id"]: row for row in rows} for k, rows in steps[max(common_steps)].items()}
        for found in pairs(by_problem, {"right": is_right, "right and passed by the judge": is_passed}):
            compared.append({"set": split, "step": max(common_steps), **found})
    results.put("comparisons", compared)
    results.path.with_suffix(".txt").write_text("\n".join(lines(results.values)) + "\n", encoding="utf-8")


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of the results as text."""
    for kind in KINDS:
        for split, steps in found[kind]["validation"].items():
            for step, s in steps.items():
                rates = ", ".join(f"{key} {shown(s[key])}" for key in list(s)[:-1])
                yield f"{kind} {split} step {step}: n {s['accuracy']['n']}, {rates}, {s['tokens']} tokens"
    yield from map(line_of, found["comparisons"])


def main() -> None:
    """Train the policies, each in a process of its own, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of results")
    parser.add_argument("--base", required=True, type=Path, help="folder of the model, such as Qwen2.5-Coder-0.5B")
    parser.add_argument("--judge", required=True, type=Path, help="folder of an adapter of the same model")
    parser.add_argument("--data", required=True, nargs="+", type=Path, help="files of questions with answers")
    parser.add_argument("--work", default="/tmp/policy", help="folder of data and runs")
    parser.add_argument("--arms", nargs="+", choices=KINDS, default=list(ARMS), help="arms to train")
    parser.add_argument("--steps", type=int, default=40, help="most training steps of a run")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate")
    parser.add_argument("--seconds", type=float, default=300.0, help="when all ends")
    parser.add_argument("--tiny", action="store_true", help="a dry run")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    begun, work = time.monotonic(), Path(given.work)
    if given.kind:
        end = turns.my_turn(work, given.kind)
        sets = {file.stem: file for file in sorted((work / "data").glob("*.jsonl"))}
        common.bound_memory(MEMORY / len(given.arms))
        turns.train_in_time(from_dict(settings(given.kind, sets, given)), end)
        return
    common.halves(given.data, work / "data")
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    results = Results(out / "policy.json")
    results.put("machine", common.machine())
    ends = turns.run_each(
        "experiments.gpu.policy",
        given.arms,
        work,
        given.seconds - (time.monotonic() - begun),
        alone=False,
        watch=lambda: write(results, work, {}),
    )
    write(results, work, ends)
    print(json.dumps(ends)[:3000], *lines(results.values), sep="\n", flush=True)


if __name__ == "__main__":
    main()
