"""Measure scoring and report on 50 000 rows: time and peak memory, and how both grow with the number of rows.

python -m benchmarks.scoring [--quick] [--rounds 3] [--rows 50000]

No other program writes our tables and pages. Each kind of work is therefore compared with the least that any program
must do: json.loads on every line of the same files. Each turn is a separate process, and the time is that of the work
after the imports. Work:

    process           the work of `fapo bench process --predictions`: rows, predictions, scores with intervals, table
    flawed-positive   the same work of `fapo bench flawed-positive`
    report            `fapo report` on a run with that number of rollouts and one step of metrics for every 100 of them
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measuring.turns import cost_of, in_turn, machine, print_result, ratios, run_module, spread

STEP = "Adding the two equations gives $3x = 12$, hence $x = 4$, which is what the second one asks for as well. "


def write_files(folder: Path, num: int) -> None:
    """Write labelled solutions, predictions and a run folder with rows as long as real ones."""
    rng = random.Random(0)
    run = folder / "run"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"name": "run", "task": "policy", "reward": {"kind": "fapo"}}))
    with (
        (folder / "data.jsonl").open("w") as data,
        (folder / "predictions.jsonl").open("w") as predictions,
        (run / "rollouts.jsonl").open("w") as rollouts,
        (run / "metrics.jsonl").open("w") as metrics,
    ):
        for n in range(num):
            steps = [f"{i}. {STEP}" for i in range(rng.randint(3, 12))]
            right = rng.random() < 0.5
            label = rng.randrange(len(steps)) if rng.random() < (0.3 if right else 1) else -1
            found = label if rng.random() < 0.8 else rng.randint(-1, len(steps) - 1)
            status = "unparsable" if rng.random() < 0.02 else "ok"
            row = {"id": f"set{n % 4}-{n}", "problem": STEP, "steps": steps, "final_answer_correct": right}
            prediction = {"id": row["id"], "error_step": found, "status": status, "critique": STEP * 5}
            rollout = {
                "schema": 1,
                "step": n // 100,
                "split": "train",
                "problem_id": row["id"],
                "problem": STEP,
                "reference": "4",
                "response": "\n\n".join(steps),
                "correct": right,
                "status": status if right else "skipped",
                "error_step": found if right and found >= 0 else None,
                "flawed": right and found >= 0,
                "critique": prediction["critique"] if right else "",
                "reward": 1.0 if right else -1.0,
                "advantage": rng.gauss(0, 1),
                "truth": {"error_step": label if label >= 0 else None, "flaw": "slip" if label >= 0 else None},
            }
            for file, value in ((data, row | {"label": label}), (predictions, prediction), (rollouts, rollout)):
                file.write(json.dumps(value) + "\n")
            if n % 100 == 0:
                for kind, area in (("train", "rollout"), ("validation", "validation")):
                    keys = ("accuracy", "fp_ratio", "true_fp_ratio", "rho", "true_rho", "reliable_accuracy", "length")
                    values = {f"{area}/{key}": rng.random() for key in keys} | {"advantage/flawed": rng.gauss(0, 1)}
                    metrics.write(json.dumps({"step": n // 100, "kind": kind, "seconds": n / 10} | values) + "\n")


def bench(benchmark: Any, folder: Path) -> Callable[[], Any]:
    from rich.console import Console

    from fapo.evaluation.judge_benchmarks import output
    from fapo.evaluation.judge_benchmarks.predictions import read_predictions, verdicts_of
    from fapo.evaluation.judge_benchmarks.rows import load_rows
    from fapo.evaluation.judge_benchmarks.score import score_flawed_positive, score_process

    def work() -> None:
        process = benchmark == "process"
        rows = load_rows(benchmark, [str(folder / "data.jsonl")])
        found = read_predictions(folder / "predictions.jsonl", rows.num_steps, with_step=process)
        context = output.Context(["data"], "predictions", "predictions", "", verdicts_of(rows.counting, found))
        score: Any = (
            score_process(rows.counting, rows.subsets, context.verdicts)
            if process
            else score_flawed_positive(rows.counting, context.verdicts)
        )
        with (folder / "table.txt").open("w") as out:
            Console(file=out).print(output.as_table(score, context))

    return work


def report(folder: Path) -> Callable[[], Any]:
    from fapo.report import write_report

    return lambda: write_report([folder / "run"], folder / "report.html")


def only_read(*files: Path) -> Callable[[], Any]:
    return lambda: [[json.loads(line) for line in file.open()] for file in files]


SCORED = ("data.jsonl", "predictions.jsonl")
RECORDED = ("run/metrics.jsonl", "run/rollouts.jsonl")
WORK: dict[str, Callable[[Path], Callable[[], Any]]] = {
    "process": lambda folder: bench("process", folder),
    "flawed-positive": lambda folder: bench("flawed-positive", folder),
    "json of both": lambda folder: only_read(*(folder / name for name in SCORED)),
    "report": report,
    "json of the run": lambda folder: only_read(*(folder / name for name in RECORDED)),
}
PEERS = {"process": "json of both", "flawed-positive": "json of both", "report": "json of the run"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 000 rows, one round")
    parser.add_argument("--rounds", type=int, help="turns of each kind of work (default 3)")
    parser.add_argument("--rows", type=int, help="default 50 000")
    parser.add_argument("--side", nargs=2, metavar=("WORK", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        cost, _ = cost_of(WORK[given.side[0]](Path(given.side[1])))
        print_result(cost)
        return
    large = given.rows or (2000 if given.quick else 50_000)
    sizes = (large // 10, large)
    with tempfile.TemporaryDirectory() as temporary:
        for size in sizes:
            write_files(Path(temporary, str(size)), size)
        turns = {
            f"{name} {size}": lambda _, name=name, size=size: run_module(
                "benchmarks.scoring", "--side", name, Path(temporary, str(size))
            )
            for name in WORK
            for size in sizes
        }
        results = in_turn(turns, given.rounds or (1 if given.quick else 3))
    found = {
        name: {
            size: {key: [r[key] for r in results[f"{name} {size}"]] for key in ("seconds", "peak")} for size in sizes
        }
        for name in WORK
    }
    head = (f"s, {large} rows", "peak MiB", f"s / s of {sizes[0]} rows", "peak / peak")
    print(f"{'':17s}{''.join(f'{title:>26s}' for title in head)}")
    for name, by_size in found.items():
        small, big = (by_size[size] for size in sizes)
        growth = [spread(ratios(big[key], small[key])) for key in ("seconds", "peak")]
        cells = [spread(big["seconds"]), spread(big["peak"], 0), *growth]
        print(f"{name:17s}{''.join(f'{cell:>26s}' for cell in cells)}")
    for name, peer in PEERS.items():
        mine, theirs = found[name][large], found[peer][large]
        texts = (f"{key} {spread(ratios(mine[key], theirs[key]))}" for key in ("seconds", "peak"))
        print(f"{name} / {peer}: {', '.join(texts)}")
    print(machine("fapo", "numpy", "rich"))


if __name__ == "__main__":
    main()
