"""Write synthetic run folders for the tests of the report."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HOSTILE = '<script>alert(1)</script>\n<img src=x onerror="alert(2)">\n</pre></li>\ud800\u202e\x00 \\boxed{7}'


def write_run(
    folder: Path, reward: Mapping[str, Any], rows: list[dict], rollouts: list[dict] | None = None, **config: Any
) -> Path:
    """Write a run folder with a reward table, metrics and rollouts, and return its path."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"name": folder.name, "reward": reward, **config}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rollouts or []))
    return folder


def policy_rows(kind: str, seed: int = 0, steps: int = 150) -> list[dict]:
    """Return synthetic metrics of a policy in training: FAPO unlearns flawed positives, the baseline keeps them."""
    noise = random.Random(f"{kind} {seed}")
    rows, fapo = [], kind == "fapo"
    for step in range(steps + 1):
        done = 1 - math.exp(-step / 60)
        accuracy = 0.5 + (0.3 if fapo else 0.24) * done
        true = 0.31 + (-0.24 if fapo else 0.09) * done
        fully, wrong = accuracy * (1 - true), 1 - accuracy
        values = {
            "accuracy": accuracy,
            "true_fp_ratio": true,
            "fp_ratio": true * 0.93,
            "length": 41 + (1.5 if fapo else 3) * done,
            "reliable_accuracy": fully,
        }
        jitter = {name: value * (1 + noise.gauss(0, 0.04)) for name, value in values.items()}
        if step % 10 == 0:
            harder = {"accuracy": 0.2 + (0.15 if fapo else 0.04) * done, "true_fp_ratio": true * 0.5, "length": 63.0}
            harder["reliable_accuracy"] = harder["accuracy"] * (1 - true * 0.5)
            row = {f"validation/{name}": value for name, value in jitter.items()}
            row |= {f"harder/{name}": value * (1 + noise.gauss(0, 0.03)) for name, value in harder.items()}
            rows.append({"step": step, "kind": "validation", "seconds": 4.0 * step, **row})
        rho = fully / wrong
        rows.append(
            {"step": step, "kind": "train", "seconds": 4.0 * step, "loss": 0.0}
            | {f"rollout/{name}": value for name, value in jitter.items()}
            | {f"rollout/{key}rho": 2 * rho + noise.gauss(0, 0.06) for key in ("", "true_")}
            | {f"rollout/{key}rho": rho + noise.gauss(0, 0.06) for key in ("flawed_", "true_flawed_")}
            | {
                "advantage/fully_correct": 0.75 - 0.25 * done + noise.gauss(0, 0.03),
                "advantage/flawed": (0.4 - 0.4 * rho if fapo else 0.6 - 0.2 * done) + noise.gauss(0, 0.06),
                "advantage/wrong": -0.85 - 0.3 * done + noise.gauss(0, 0.03),
                "judge/f1": 0.85 - 0.08 * done + noise.gauss(0, 0.02),
            }
        )
    return rows


def genrm_rows(gain: float) -> list[dict]:
    """Return synthetic validations of a judge in training; `gain` in [0, 1] is how much it learns."""
    rows = []
    for step in range(0, 121, 10):
        done = gain * (1 - math.exp(-step / 40))
        quality = {"precision": 0.62 + 0.25 * done, "recall": 0.78 + 0.1 * done, "f1": 0.69 + 0.19 * done}
        quality |= {"location": 0.7 + 0.2 * done, "tokens": 58 - 4 * done, "invalid_rate": 0.03 * (1 - done)}
        named = {f"{name}/{key}": value for name in ("validation", "harder") for key, value in quality.items()}
        rows.append({"step": step, "kind": "validation", "seconds": float(step), **named})
    return rows


def rollout(step: int, number: int, judged: int | None, true: int | None, **changes: Any) -> dict:
    """Return a row of rollouts.jsonl with a right answer and three steps."""
    row = {
        "schema": 1,
        "step": step,
        "split": "train",
        "problem_id": f"miniature-{number}",
        "problem": f"start {17 + number}, add 8, times 3. remainder modulo 10?",
        "reference": "5",
        "response": f"{17 + number}+8={25 + number}\n{25 + number}*3={65 + number}\n\\boxed{{5}}",
        "num_tokens": 21,
        "correct": True,
        "status": "ok",
        "error_step": judged,
        "flawed": judged is not None,
        "critique": f"{17 + number}+8={25 + number} ok\n{25 + number}*3={75 + 3 * number} no\n\\boxed{{1}}",
        "reward": 0.0 if judged is not None else 1.0,
        "parts": {"outcome": 1.0, "flaw": -1.0},
        "advantage": -0.31,
        "truth": {"error_step": true, "flaw": None if true is None else "slip"},
    }
    return row | changes


def rollouts() -> list[dict]:
    """Return rollouts of all kinds: agreement, false negatives, false positives, and one with hostile text."""
    rows = [rollout(step, step % 40, 1, 1) for step in range(100, 151)]
    rows += [rollout(149, 60 + i, None, 1, critique="ok\n\\boxed{-1}") for i in range(4)]
    rows += [rollout(150, 70 + i, 0, None) for i in range(4)]
    return [*rows, rollout(150, 80, 1, 1, response=HOSTILE, critique=HOSTILE, problem=HOSTILE, problem_id=HOSTILE)]
