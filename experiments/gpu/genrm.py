"""A GenRM by step-wise RL and by outcome RL from the same start, with LoRA, on labelled solutions of ProcessBench.

    python -m experiments.gpu.genrm --out OUT --base FOLDER --data FILE ... [--seconds 300] [--steps 60] [--tiny]

FILE is a file of ProcessBench, such as gsm8k.jsonl. Half of the problems are for training. The other half is measured
before training and every few steps, also the solutions with right answers and those with wrong ones by themselves.
Training has both, since too few of the right ones are flawed. The runs have the card one after the other, each with
half of the time. A run ends by itself before a validation that would be too late. A second call continues both at their
last checkpoints. Results: OUT/genrm.json and OUT/genrm.txt, from the first validation on. The adapter of step-wise RL
is in WORK/judge, for policy.py.
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
from experiments.gpu.compare import paired
from experiments.gpu.measured import by_validation, rate_of
from fapo.config import from_dict
from fapo.data import load_labelled, read_jsonl
from fapo.evaluation.intervals import Interval, decimal, percent
from fapo.evaluation.judge_benchmarks.score import score_process
from fapo.inference.decoding import CHECKED_VERSION, is_version
from fapo.judge.verdicts import verdict_from_row
from fapo.types import LabelledSolution, Verdict

KINDS = ("genrm_step", "genrm_outcome")
"""Rewards, and names of the runs."""
MEMORY = 0.9
"""Fraction of the card's memory that a run may use."""
MAX_CHARACTERS = 1800
"""Largest length of a problem and its steps together; longer rows would set the time and the memory of a batch."""
EVERY = 5
"""Steps between two validations and checkpoints."""
PROMPT = "locate_small"
"""Template: the 0.5B answers it with a sentence of 14 tokens, and with a valid verdict on 400 of 400 rows."""
MAX_TOKENS = 24
"""Length limit of a critique."""
TEST = "test"
"""Name of the validation set."""


def settings(kind: str, sets: dict[str, Path], given: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a run.

    Args:
        kind: One of KINDS.
        sets: Files of `common.halves`.
        given: Options of the command line.
    """
    tiny = given.tiny
    num_prompts, group, max_tokens = (2, 2, 8) if tiny else (given.prompts, 8, MAX_TOKENS)
    # with another transformers each rollout reads its own prompt in the update, which needs eight times the memory
    groups = next(n for n in (6, 4, 3, 2, 1) if given.prompts % n == 0) if is_version(CHECKED_VERSION) else 1
    return {
        "name": kind,
        "task": "genrm",
        "output": given.work,
        "model": {
            "path": str(given.base),
            "dtype": "float32" if tiny else "mixed",
            "lora": {"rank": 16, "save": "adapter"},
        },
        "data": {
            "train": str(sets["train"]),
            "validation": {TEST: str(sets[TEST])},
            "max_prompt_tokens": 400 if tiny else 2560,
        },
        "genrm": {"template": "compact" if tiny else PROMPT},
        "rollout": {"num_prompts": num_prompts, "group_size": group, "max_tokens": max_tokens},
        "reward": {"kind": kind},
        "optim": {
            "steps": 2 if tiny else given.steps,
            "learning_rate": given.rate,
            "warmup_steps": 2,
            "micro_batch_size": 2 if tiny else 8 * groups,
        },
        "trl": {"per_device_eval_batch_size": 4 if tiny else 128},
        "validation": {"every": EVERY, "save_every": EVERY, "temperature": 0.0, "limit": 4 if tiny else given.limit},
    }


def parts_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the rows of a validation: all of them, those with right answers, and those with wrong ones."""
    right = [row for row in rows if row["truth"]["answer_correct"]]
    wrong = [row for row in rows if row["truth"]["answer_correct"] is False]
    return {name: part for name, part in (("all", list(rows)), ("right", right), ("wrong", wrong)) if part}


def scores(rows: Sequence[Mapping[str, Any]], solutions: Mapping[str, LabelledSolution]) -> dict[str, Any]:
    """Return the quality of the verdicts on some rows of a validation; a row without a verdict is wrong.

    Args:
        rows: Rollouts of the validation.
        solutions: Labelled solutions by id.

    Returns:
        Number of rows and of flawed ones, rate of valid verdicts, precision, recall, F1 and J of the flags, rate of
        named first wrong steps and F1 of ProcessBench, each with its 95 % interval, and the mean number of tokens.
    """
    verdicts = [verdict_from_row(row) or Verdict("failed") for row in rows]
    found = score_process([solutions[row["problem_id"]] for row in rows], ["all"] * len(rows), verdicts)
    flags, process = found.flags, found.pooled

    def with_interval(value: float, interval: Interval) -> dict[str, Any]:
        low, high = interval
        return {"value": _rounded(value), "interval": [_rounded(low), _rounded(high)]}

    return {
        "n": len(rows),
        "flawed": flags.point.num_flawed,
        "valid": rate_of(sum(verdict.status == "ok" for verdict in verdicts), len(rows)),
        "flagged": rate_of(sum(bool(verdict.flawed) for verdict in verdicts), len(rows)),
        "precision": with_interval(flags.point.precision, flags.precision),
        "recall": with_interval(flags.point.recall, flags.recall),
        "f1": with_interval(flags.point.f1, flags.f1),
        "j": with_interval(flags.point.youden_j, flags.youden_j),
        "location": with_interval(process.point.error_acc, process.error_acc),
        "f1_of_processbench": with_interval(process.point.f1, process.f1),
        "tokens": round(sum(row["num_tokens"] for row in rows) / len(rows), 2),
    }


def _rounded(value: float) -> float | None:
    """Return a number with four digits; None for NaN, which JSON does not have."""
    return None if value != value else round(value, 4)


def is_flag_right(row: Mapping[str, Any]) -> bool:
    """Return whether a verdict says what the label says: flawed, or not."""
    return bool(row["status"] == "ok" and row["flawed"] == (row["truth"]["error_step"] is not None))


def is_step_right(row: Mapping[str, Any]) -> bool:
    """Return whether a verdict names the first wrong step, or says that there is none where there is none."""
    return is_flag_right(row) and bool(row["error_step"] == row["truth"]["error_step"])


def comparisons(runs: Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]]) -> Iterator[dict[str, Any]]:
    """Yield paired comparisons on the same solutions: each run before and after training, and both runs at one step.

    Args:
        runs: For each run the rows of its validations by step.
    """
    pairs: list[tuple[str, int, str, int]] = [(k, min(v), k, max(v)) for k, v in runs.items() if len(v) > 1]
    if len(runs) == len(KINDS) and (both := set.intersection(*(set(steps) for steps in runs.values())) - {0}):
        last = max(both)
        pairs.append((KINDS[1], last, KINDS[0], last))
    for first, before, second, after in pairs:
        a, b = ({row["problem_id"]: row for row in runs[k][s]} for k, s in ((first, before), (second, after)))
        same = sorted(set(a) & set(b))
        for name, measure in (("flag", is_flag_right), ("step", is_step_right)):
            if same:
                sides = {"first_run": f"{first} {before}", "second_run": f"{second} {after}", "right": name}
                yield sides | paired((measure(a[i]) for i in same), (measure(b[i]) for i in same))


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of the results as text."""
    for kind in KINDS:
        for step, parts in found.get(kind, {}).get("validation", {}).items():
            for name, s in parts.items():
                rates = ("precision", "recall", "f1", "location", "f1_of_processbench")
                shown = [f"{key} {_shown(s[key], percent)}" for key in rates]
                valid = percent(s["valid"]["rate"], tuple(s["valid"]["interval"]))
                yield (
                    f"{kind} step {step}, {name}: n {s['n']}, flawed {s['flawed']}, valid {valid}, "
                    f"flagged {percent(s['flagged']['rate'])}, J {_shown(s['j'], decimal)}, {', '.join(shown)}, "
                    f"{s['tokens']} tokens"
                )
    for c in found.get("comparisons", ()):
        low, high = (100 * end for end in c["interval"])
        yield (
            f"{c['right']} right, {c['first_run']} -> {c['second_run']}: {100 * c['first']:.1f} -> "
            f"{100 * c['second']:.1f} %, difference {100 * c['difference']:+.1f} ({low:+.1f} to {high:+.1f}), "
            f"only one: {c['only_first']} {c['only_second']}, p {c['p']:.2g}, n {c['n']}"
        )


def _shown(number: Mapping[str, Any], show: Any) -> str:
    """Return a number with its interval as text."""
    if number["value"] is None or None in number["interval"]:
        return "-"
    return str(show(number["value"], tuple(number["interval"])))


def is_better_than_chance(found: Mapping[str, Any], kind: str) -> bool:
    """Return whether J of a run's last validation is above 0 with its whole interval."""
    validations = found.get(kind, {}).get("validation", {})
    if not validations:
        return False
    low = validations[max(validations, key=int)]["all"]["j"]["interval"][0]
    return low is not None and low > 0


class Watch:
    """Writer of the results during the runs."""

    def __init__(self, results: Results, work: Path) -> None:
        """Start with nothing seen.

        Args:
            results: File of the results.
            work: Folder of data and runs.
        """
        self.results, self.work = results, work
        self.solutions = {s.problem.id: s for s in load_labelled(str(work / "data" / f"{TEST}.jsonl"))}
        self.seen: dict[str, int] = {}

    def __call__(self) -> None:
        """Write the results again if a run has written another row of metrics."""
        files = {kind: self.work / kind / "metrics.jsonl" for kind in KINDS}
        sizes = {kind: file.stat().st_size for kind, file in files.items() if file.exists()}
        if sizes != self.seen:
            self.seen = sizes
            self.write({})

    def write(self, ends: Mapping[str, Mapping[str, Any]]) -> None:
        """Write what has been measured so far, also of unfinished runs.

        Args:
            ends: How the runs ended, by kind.
        """
        runs: dict[str, dict[int, Sequence[Mapping[str, Any]]]] = {}
        for kind in KINDS:
            found: dict[str, Any] = dict(ends.get(kind, {}))
            if (self.work / kind / "rollouts.jsonl").exists():
                runs[kind] = {step: rows for (_, step), rows in by_validation(self.work / kind).items()}
                found["validation"] = {
                    str(step): {name: scores(part, self.solutions) for name, part in parts_of(rows).items()}
                    for step, rows in runs[kind].items()
                }
            if found:
                self.results.values[kind] = found
        self.results.put("comparisons", list(comparisons({kind: steps for kind, steps in runs.items() if steps})))
        self.results.put("judge_is_better_than_chance", is_better_than_chance(self.results.values, KINDS[0]))
        text = "\n".join(lines(self.results.values)) + "\n"
        self.results.path.with_suffix(".txt").write_text(text, encoding="utf-8")


def main() -> None:
    """Train both GenRMs, each in a process of its own, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of results")
    parser.add_argument("--base", required=True, type=Path, help="folder of the model, such as Qwen2.5-Coder-0.5B")
    parser.add_argument("--data", required=True, nargs="+", type=Path, help="files of ProcessBench")
    parser.add_argument("--work", default="/tmp/genrm", help="folder of data and runs")
    parser.add_argument("--runs", nargs="+", choices=KINDS, default=list(KINDS), help="runs to make, in this order")
    parser.add_argument("--steps", type=int, default=60, help="most training steps of a run")
    parser.add_argument("--prompts", type=int, default=24, help="solutions in a step, with eight critiques each")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate")
    parser.add_argument("--limit", type=int, default=512, help="most solutions in a validation")
    parser.add_argument("--seconds", type=float, default=300.0, help="when all ends")
    parser.add_argument("--tiny", action="store_true", help="a dry run")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    begun, work = time.monotonic(), Path(given.work)
    if given.kind:
        end = turns.my_turn(work, given.kind)
        sets = {name: work / "data" / f"{name}.jsonl" for name in ("train", TEST)}
        common.bound_memory(MEMORY)
        turns.train_in_time(from_dict(settings(given.kind, sets, given)), end)
        return
    sets = common.halves(given.data, work / "data", TEST, MAX_CHARACTERS)
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    results = Results(out / "genrm.json")
    results.put("machine", common.machine())
    results.put("rows", {name: sum(1 for _ in read_jsonl(path)) for name, path in sets.items()})
    watch = Watch(results, work)
    ends = turns.run_each(
        "experiments.gpu.genrm",
        given.runs,
        work,
        given.seconds - (time.monotonic() - begun),
        alone=True,
        ready=(given.base / "config.json").exists,
        watch=watch,
    )
    watch.write(ends)
    if (trained := turns.newest(work / KINDS[0])) and not (work / "judge").exists():
        (work / "judge").symlink_to(trained.resolve())
    print(json.dumps(ends)[:3000], *lines(results.values), sep="\n", flush=True)


if __name__ == "__main__":
    main()
