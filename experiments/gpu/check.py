"""Checks of fapo on one GPU, in three minutes: exactness first, then speed.

    python -m experiments.gpu.check --out OUT [--base FOLDER] [--seconds 180] [--skip PART ...] [--tiny]

    facts        card, versions, bandwidth of a copy, rate of a matrix product
    parity       rewards, advantages, masked rows, loss and gradient on the card, in float32 and with bfloat16 products,
                 against the pure functions and a 64-bit reference on the processor
    judge        the miniature's GenRM in bfloat16 against float32: verdicts, J, tokens a second
    rollouts     tokens a second of SmolLM2 by transformers' generate(), beside the limit of the card's bandwidth
    steps        seconds of a training step by part: TRL's GRPOTrainer, ours, FAPO judged after and FAPO judged ahead
                 by a judge that takes 18/42 of the rollouts' time (the paper's proportions)
    lora         an interrupted run with LoRA against a whole one: difference of the adapters, size of a checkpoint
    adapter      memory and seconds of a step: policy alone, with an adapter judge, and with a judge of its own weights
    continuous   rollouts by generate_batch() (continuous batching), in processes of their own

An error in one part is kept in the results, and the other parts are computed. Each result is written to
OUT/check.json at once. On a processor all parts run, but too slowly to mean anything: --tiny is the dry run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from experiments.gpu import adapters, common
from experiments.gpu.common import Results
from experiments.gpu.parity import parity
from experiments.gpu.speed import ceilings, continuous, judges, rollouts
from experiments.gpu.steps import steps

PARTS = ("facts", "parity", "judge", "rollouts", "steps", "lora", "adapter", "continuous")
ENGINES = ("kept", "for_each_call")
"""Life of the engine in the part `continuous`: one for both calls, or one that ends with its call, as in TRL."""
ENGINE_SECONDS = 50.0
"""Time limit of each of the two."""


def in_own_process(given: argparse.Namespace, engine: str, bytes_s: float, seconds: float) -> dict[str, Any]:
    """Return the speed of continuous batching, measured in a process of its own.

    Args:
        given: Options of the command line.
        engine: One of ENGINES.
        bytes_s: Bandwidth of the card in bytes a second.
        seconds: Time after which the process is killed; its finished measurements are kept.
    """
    command = [sys.executable, "-m", "experiments.gpu.check", "--out", given.out, "--base", given.base]
    command += ["--engine", engine, "--bytes-s", str(bytes_s), *(["--tiny"] if given.tiny else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(1.0, seconds), check=False)
        text, errors, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as late:
        text, errors = ((part or b"").decode(errors="replace") for part in (late.stdout, late.stderr))
        code = None
    result: dict[str, Any] = {}
    for line in text.splitlines():
        if line.startswith("{"):
            result |= json.loads(line)
    if code != 0:
        why = f"exit code {code}" if code is not None else f"killed after {seconds:.0f} s"
        result[f"{engine}_stopped"] = {"why": why, "errors": errors[-1000:]}
    return result


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of results")
    parser.add_argument("--base", default="/tmp/smollm2", help="folder of SmolLM2; the parts that need it wait for it")
    parser.add_argument("--work", default="/tmp/check", help="folder of runs")
    parser.add_argument("--seconds", type=float, default=180.0, help="time limit; parts that begin later are left out")
    parser.add_argument("--skip", nargs="*", default=[], choices=PARTS, help="parts to leave out")
    parser.add_argument("--tiny", action="store_true", help="a dry run")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--bytes-s", type=float, default=3e12, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Compute all parts that are not left out."""
    given = arguments()
    begun = time.monotonic()
    torch.set_float32_matmul_precision("high")
    if given.tiny:
        torch.set_num_threads(1)
    base, out, work = Path(given.base), Path(given.out), Path(given.work)
    if given.engine:
        continuous(base, given.bytes_s, given.tiny, given.engine == "kept")
        sys.stdout.flush()
        os._exit(0)  # the engine's thread does not end by itself
    out.mkdir(parents=True, exist_ok=True)
    results = Results(out / "check.json")

    def left() -> float:
        return float(given.seconds) - (time.monotonic() - begun)

    def model() -> Path:
        """Wait for SmolLM2, which another process may be writing."""
        while not (base / "DONE").exists():
            if left() < 20:
                raise FileNotFoundError(f"no model in {base}")
            time.sleep(0.5)
        return base

    def engines() -> dict[str, Any]:
        found = [in_own_process(given, engine, bytes_s, min(ENGINE_SECONDS, left())) for engine in ENGINES]
        return found[0] | found[1]

    parts: dict[str, tuple[Callable[[], Any], float]] = {
        "facts": (lambda: common.machine() | ceilings(given.tiny), 5),
        "parity": (lambda: parity(given.tiny), 10),
        "judge": (lambda: judges(model(), given.tiny), 15),
        "rollouts": (lambda: rollouts(model(), bytes_s, given.tiny), 15),
        "steps": (lambda: steps(model(), given.tiny, left), 40),
        "lora": (lambda: adapters.resume(model(), work / "lora", given.tiny), 40),
        "adapter": (lambda: adapters.adapter_judge(model(), work / "adapter", given.tiny), 50),
        "continuous": (engines, 20),
    }
    for name in PARTS:
        bytes_s = 1e12 * results.values.get("facts", {}).get("bandwidth_tb_s", 3.0)
        if name not in given.skip:
            compute, needed = parts[name]
            results.part(name, compute, left() - needed)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    results.put("seconds", round(time.monotonic() - begun, 1))


if __name__ == "__main__":
    main()
