"""Numbers of the runs in sentences, counted by the oracle from the recorded rollouts: rates with intervals, a table."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.gpu import world
from experiments.gpu.common import Results
from fapo.data import read_jsonl
from fapo.evaluation.intervals import wilson_interval
from fapo.types import GroundTruth

REWARDS: dict[str, dict[str, Any]] = {
    "grpo": {"kind": "outcome"},
    "fapo": {"kind": "fapo", "penalty": 1.0},
    "first_error": {"kind": "first_error", "penalty": 1.0},
    "fapo2": {"kind": "fapo", "penalty": 2.0},
}
"""Arm -> its [reward] table; the runs of a learning rate are in folders ARM-RATE."""
KINDS = tuple(REWARDS)
"""Names of the arms."""
JUDGED = tuple(kind for kind, reward in REWARDS.items() if reward["kind"] != "outcome")
"""Arms with a judge. With first-error credit it reads all rollouts, with the others the right ones."""
KEPT = ("step", "split", "problem", "response", "correct", "status", "flawed", "error_step", "critique", "num_tokens")
"""Fields of a rollout that are kept among the results."""
ROLLOUTS = "sentences-rollouts.jsonl.gz"
"""File of the validations' rollouts, one JSON object a line."""
MAX_BYTES = 12 << 20
"""Largest size of that file; a larger one is not kept."""


def rate_of(k: int, n: int) -> dict[str, Any]:
    """Return k of n as a rate with Wilson's 95 % interval."""
    low, high = wilson_interval(k, n)
    return {"rate": round(k / n, 4) if n else None, "k": k, "n": n, "interval": [round(low, 4), round(high, 4)]}


def quality(flawed: Sequence[bool | None], labels: Sequence[bool]) -> dict[str, Any]:
    """Return precision, recall, false positive rate and J of verdicts.

    Args:
        flawed: Verdict on each solution; None, a missing one, flags nothing.
        labels: Whether each solution is flawed in truth.
    """
    flagged = [bool(f) for f in flawed]
    hits = sum(f and t for f, t in zip(flagged, labels, strict=True))
    false = sum(f and not t for f, t in zip(flagged, labels, strict=True))
    num = sum(labels)
    recall, wrong = rate_of(hits, num), rate_of(false, len(labels) - num)
    both = recall["rate"] is not None and wrong["rate"] is not None
    return {
        "precision": rate_of(hits, hits + false),
        "recall": recall,
        "false_positive_rate": wrong,
        "J": round(recall["rate"] - wrong["rate"], 4) if both else None,
        "unparsable": sum(f is None for f in flawed),
    }


def summary_of_solutions(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return accuracy, flawed positives, lengths and the quality of the judge in one validation.

    The judge is measured on right solutions, and apart from them on wrong ones if it has read these.

    Args:
        rows: Rollouts of the validation, one for each question.
    """
    truths = [world.truth(world.parse(row["problem"]), row["response"]) for row in rows]
    right = [(row, truth) for row, truth in zip(rows, truths, strict=True) if row["correct"]]
    flawed = sum(truth.flawed for _, truth in right)
    kinds = [truth.flaw for _, truth in right if truth.flaw]
    out = {
        "accuracy": rate_of(len(right), len(rows)),
        "right_for_the_right_reason": rate_of(len(right) - flawed, len(rows)),
        "flawed_positives": rate_of(flawed, len(right)),
        "kinds": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "tokens": round(sum(row["num_tokens"] for row in rows) / len(rows), 2),
    }
    if judged := [(row, truth) for row, truth in right if row["status"] != "skipped"]:
        out["judge"] = quality([row["flawed"] for row, _ in judged], [truth.flawed for _, truth in judged])
        found = [(row, truth) for row, truth in judged if row["flawed"] and truth.flawed]
        out["judge"]["location"] = _location(found)
    wrong = [(row, truth) for row, truth in zip(rows, truths, strict=True) if not row["correct"]]
    if judged := [(row, truth) for row, truth in wrong if row["status"] != "skipped"]:
        found = [(row, truth) for row, truth in judged if row["flawed"]]
        recall = rate_of(len(found), len(judged))
        out["judge_of_wrong_solutions"] = {"recall": recall, "location": _location(found)}
    return out


def _location(found: Sequence[tuple[Mapping[str, Any], GroundTruth]]) -> dict[str, Any]:
    """Return how often a judge names the right step, of the flawed solutions that it has flagged."""
    return rate_of(sum(row["error_step"] == truth.error_step for row, truth in found), len(found))


def summary_of_critiques(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the quality of the judge in training, on labelled right solutions, half of them flawed."""
    labels = [row["truth"]["error_step"] for row in rows]
    out = quality([row["flawed"] for row in rows], [label is not None for label in labels])
    found = [(row, label) for row, label in zip(rows, labels, strict=True) if row["flawed"] and label is not None]
    out["location"] = rate_of(sum(row["error_step"] == label for row, label in found), len(found))
    out["tokens"] = round(sum(row["num_tokens"] for row in rows) / len(rows), 2)
    return out


def validations(work: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield the name of the run and the row of every validation rollout below a work folder."""
    for file in sorted((work / "runs").glob("*/rollouts.jsonl")):
        for row in read_jsonl(file, ignore_torn_tail=True):
            if row["split"] != "train":
                yield file.parent.name, row


def by_validation(run: Path) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Return the rollouts of each validation of a run, also of an unfinished one, by set and step, in this order."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in read_jsonl(run / "rollouts.jsonl", ignore_torn_tail=True):
        if row["split"] != "train":
            groups.setdefault((row["split"], row["step"]), []).append(row)
    return dict(sorted(groups.items()))


def measured(work: Path) -> dict[str, Any]:
    """Return the summary of every validation, by run, split and step."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for run, row in validations(work):
        groups.setdefault((run, row["split"], row["step"]), []).append(row)
    out: dict[str, Any] = {}
    for (run, split, step), rows in sorted(groups.items()):
        summary = summary_of_critiques(rows) if run == "judge" else summary_of_solutions(rows)
        out.setdefault(run, {}).setdefault(split, {})[str(step)] = summary
    return out


def times(work: Path) -> dict[str, Any]:
    """Return the median seconds of the parts of a training step, and curves of the training, for every run."""
    out = {}
    for file in sorted((work / "runs").glob("*/metrics.jsonl")):
        rows = [row for row in read_jsonl(file, ignore_torn_tail=True) if row["kind"] == "train"]
        parts: dict[str, Any] = {"steps": len(rows)}
        for key in ("time/rollout", "time/score", "time/update"):
            values = sorted(row[key] for row in rows if row.get(key) is not None)
            parts[key] = round(values[len(values) // 2], 3) if values else None
        for key in ("accuracy", "fp_ratio"):
            values = [row[f"rollout/{key}"] for row in rows if row.get(f"rollout/{key}") is not None]
            parts[f"{key}_by_step"] = [round(value, 3) for value in values]
        out[file.parent.name] = parts
    return out


def table(work: Path, out: Path) -> None:
    """Write and print all that has been measured.

    Args:
        work: Folder of the runs.
        out: Folder of results; gets sentences.json, sentences.txt and the rollouts of the validations.
    """
    results = Results(out / "sentences.json")
    found = measured(work)
    results.put("runs", found)
    results.put("notes", {f.stem: json.loads(f.read_text(encoding="utf-8")) for f in sorted(work.glob("*.json"))})
    results.put("times", times(work))
    text = "\n".join([*_lines_of_judge(found.get("judge", {})), *_lines_of_runs(found)]) + "\n"
    (out / "sentences.txt").write_text(text, encoding="utf-8")
    print(text, flush=True)
    keep_rollouts(work, out / ROLLOUTS)


def shown(value: Mapping[str, Any] | None) -> str:
    """Return a rate with its interval in percent."""
    if not value or value["rate"] is None:
        return "-"
    low, high = (100 * end for end in value["interval"])
    return f"{100 * value['rate']:.1f} % ({low:.1f} to {high:.1f})"


def _lines_of_judge(parts: Mapping[str, Any]) -> Iterable[str]:
    """Yield a line for each validation of the judge in training."""
    for part, steps in parts.items():
        for step, values in steps.items():
            rates = ("precision", "recall", "false_positive_rate", "location")
            numbers = ", ".join(f"{name} {shown(values[name])}" for name in rates)
            yield f"judge, {part}, RL step {step}: {numbers}, J {values['J']}, unparsable {values['unparsable']}"


def _lines_of_runs(found: Mapping[str, Any]) -> Iterable[str]:
    """Yield a table for each learning rate and set, at the last validation that all arms have."""
    for rate in sorted({name.split("-", 1)[1] for name in found if "-" in name}):
        runs = {kind: found.get(f"{kind}-{rate}") for kind in KINDS}
        for part in ("validation", "harder"):
            sides = {kind: run[part] for kind, run in runs.items() if run and part in run}
            if not sides:
                continue
            last = max(set.intersection(*(set(map(int, side)) for side in sides.values())), default=0)
            columns = {"start": next(iter(sides.values())).get("0")}
            columns |= {f"{kind} {last}": side.get(str(last)) for kind, side in sides.items()}
            yield f"\n{part}, learning rate {rate}: " + " | ".join(columns)
            for key in ("accuracy", "right_for_the_right_reason", "flawed_positives"):
                yield f"{key:28s} " + " | ".join(shown(c and c[key]) for c in columns.values())
            yield f"{'tokens':28s} " + " | ".join(str(c["tokens"]) if c else "-" for c in columns.values())
            for kind, side in sides.items():
                for step in dict.fromkeys(("0", str(last))):
                    yield from _lines_of_verdicts(f"{kind} at step {step}", side.get(step, {}))
            key = "right_for_the_right_reason"
            curves = {kind: {step: v[key]["rate"] for step, v in side.items()} for kind, side in sides.items()}
            yield f"  right for the right reason by step: {json.dumps(curves)}"


def _lines_of_verdicts(name: str, values: Mapping[str, Any]) -> Iterable[str]:
    """Yield a line for the verdicts of a validation on right solutions, and one for those on wrong solutions."""
    if judge := values.get("judge"):
        rates = f"precision {shown(judge['precision'])}, recall {shown(judge['recall'])}"
        yield f"  judge of {name}: {rates}, J {judge['J']}, unparsable {judge['unparsable']}"
    if judge := values.get("judge_of_wrong_solutions"):
        rates = f"recall {shown(judge['recall'])}, location {shown(judge['location'])}"
        yield f"  judge of {name}, wrong solutions: {rates}"


def keep_rollouts(work: Path, path: Path) -> None:
    """Write the rollouts of the validations, so that anything else can be counted later."""
    with gzip.open(path, "wt", encoding="utf-8") as out:
        for run, row in validations(work):
            out.write(json.dumps({"run": run} | {key: row.get(key) for key in KEPT}) + "\n")
    if path.stat().st_size > MAX_BYTES:
        path.unlink()
