"""GRPO beside FAPO in the miniature in sentences, with a pretrained language model: SmolLM2-135M-Instruct.

    python -m experiments.gpu.sentences all --out OUT --base FOLDER [--seconds 500] [--rates 1.2e-4] [--tiny]
    python -m experiments.gpu.sentences all --out OUT --base FOLDER --start weak --arms fapo first_error fapo2

Each stage is a process of its own that waits for the stages it needs:

    policy    SmolLM2 learns the arithmetic, then imitates a writer with a misconception
    judge     SmolLM2 imitates critiques of a hasty reviewer, then learns by step-wise RL (`fapo train`, genrm_step)
    grpo      `fapo train` from that policy with reward.kind = outcome
    fapo      the same with reward.kind = fapo, judged by that judge; a flawed positive gets a penalty of 1
    first_error   first-error credit (reward.kind = first_error); the same judge reads all rollouts, also the wrong ones
    fapo2     FAPO with a penalty of 2, which makes a flawed positive as bad as a wrong answer
    table     the numbers of all runs so far (also by itself, at any time)

Policy and judge learn side by side, then the --arms; with several --rates one group after the other. --work keeps
all that is finished, and a checkpoint every five steps: a second start continues there. A run ends by itself when
there is no time for another validation, which leaves the card to the others.
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.gpu import measured
from experiments.gpu.common import LAST_SECONDS, Results
from experiments.gpu.measured import JUDGED, KINDS

STARTS = ("shipped", "weak")
"""Writers that the policy may imitate: the names of examples.STARTS, a module that takes seconds to import."""
SETS = ("validation", "harder")
"""Sets that are validated."""


@dataclass
class Child:
    """The process of a stage."""

    stage: list[str]
    """Name and options of the stage."""
    log: Path
    """File of its output."""
    process: subprocess.Popen[bytes]
    """The process."""
    shown: int = 0
    """Number of characters of the log that have been printed."""

    @property
    def text(self) -> str:
        """The whole log."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def show(self) -> None:
        """Print the new lines of its progress."""
        whole = self.text.rpartition("\n")[0]
        for line in whole[self.shown :].splitlines():
            if " s left" in line or "Error" in line:
                print(line[:220], flush=True)
        self.shown = len(whole)

    def end(self) -> None:
        """Kill the process if it still runs, and print how it ended unless all went well."""
        code = self.process.poll()
        if code is None:
            print(f"{self.stage}: ended for lack of time", flush=True)
            self.process.kill()
            self.process.wait()
        elif code:
            print(f"{self.stage}: exit code {code}; its end:", *self.text.splitlines()[-12:], sep="\n", flush=True)


def everything(given: argparse.Namespace) -> None:
    """Run the stages, end them in time, and write and print the table."""
    out, work = Path(given.out), Path(given.work)
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    groups = [[[kind, "--rates", f"{rate:g}"] for kind in given.arms] for rate in given.rates]
    # the first group starts with the base models: its imports, and GRPO, which needs no judge, fill the wait
    base = [[name] for name in ("policy", "judge") if name not in given.skip]
    children: list[Child] = []
    for stages in [base + groups[0], *groups[1:]]:
        children += [_start(stage, given, work) for stage in stages]
        _watch(children, out, given)
    for child in children:
        child.end()
    _keep_logs(children, out)
    measured.table(work, out)


def _start(stage: list[str], given: argparse.Namespace, work: Path) -> Child:
    """Start the process of a stage."""
    options = ["--out", given.out, "--work", given.work, "--base", given.base, "--end", str(given.end)]
    options += ["--steps", str(given.steps), "--judge-rate", str(given.judge_rate), "--warm-up", str(given.warm_up)]
    options += ["--start", given.start, "--sets", *given.sets, "--arms", *given.arms]
    options += [*(["--tiny"] if given.tiny else []), *(["--skip", *given.skip] if given.skip else [])]
    log = work / f"log-{'-'.join(part for part in stage if part != '--rates')}.txt"
    with log.open("w", encoding="utf-8") as file:
        command = [sys.executable, "-m", "experiments.gpu.sentences", *stage, *options]
        return Child(stage, log, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT))


def _watch(children: Sequence[Child], out: Path, given: argparse.Namespace) -> None:
    """Print progress until all stages have ended or the time is over; every minute keep what there is."""
    kept = time.monotonic()
    while any(child.running for child in children) and time.time() < given.end - LAST_SECONDS:
        time.sleep(2)
        for child in children:
            child.show()
        failed = {child.stage[0] for child in children if child.process.poll()} & {"policy", "judge"}
        for child in children:
            if failed and child.running and ("policy" in failed or child.stage[0] in JUDGED):
                print(f"{', '.join(failed)} failed: {child.stage[0]}, which waits for it, is ended", flush=True)
                child.process.kill()
        if time.monotonic() - kept > 60:
            kept = time.monotonic()
            Results(out / "sentences.json").put("runs", measured.measured(Path(given.work)))
            _keep_logs(children, out)


def _keep_logs(children: Sequence[Child], out: Path) -> None:
    """Write the logs of all stages to one file."""
    with gzip.open(out / "sentences-logs.txt.gz", "wt", encoding="utf-8") as file:
        for child in children:
            file.write(f"=== {child.log.name}\n{child.text}\n")


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("all", "policy", "judge", *KINDS, "table"))
    parser.add_argument("--out", required=True, help="folder of results")
    parser.add_argument("--work", default="/tmp/sentences", help="folder of models, data and runs")
    parser.add_argument("--base", default="/tmp/smollm2", help="folder of SmolLM2, as common.prepare_model writes it")
    parser.add_argument("--seconds", type=float, default=500.0, help="time limit of all stages together")
    parser.add_argument("--end", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--warm-up", type=float, default=150.0, help="seconds of the policy's imitation")
    parser.add_argument("--steps", type=int, default=40, help="training steps of a policy's run")
    parser.add_argument("--rates", type=float, nargs="+", default=[1.2e-4], help="learning rates of the policy's runs")
    parser.add_argument("--judge-rate", type=float, default=3e-5, help="learning rate of the judge's RL")
    parser.add_argument("--start", choices=STARTS, default="shipped", help="writer that the policy imitates")
    parser.add_argument("--arms", nargs="+", choices=KINDS, default=["grpo", "fapo"], help="arms to train")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="sets to validate")
    parser.add_argument("--skip", nargs="*", default=[], help="stages to leave out; judge_rl is the judge's RL alone")
    parser.add_argument("--tiny", action="store_true", help="a dry run: a few rows, a few steps")
    given = parser.parse_args()
    given.end = given.end or time.time() + given.seconds
    return given


def main() -> None:
    """Run one stage, or all of them."""
    given = arguments()
    if given.stage == "all":
        everything(given)
        return
    if given.stage == "table":
        measured.table(Path(given.work), Path(given.out))
        return
    import torch

    from experiments.gpu.stages import Settings, Stage  # takes seconds, which only the stages' processes need

    torch.set_float32_matmul_precision("high")  # tf32 on the card: 32-bit weights, no casts
    if given.tiny:
        torch.set_num_threads(1)
    settings = Settings(
        Path(given.work),
        Path(given.base),
        given.end,
        given.warm_up,
        given.steps,
        given.judge_rate,
        "judge_rl" not in given.skip,
        given.start,
        tuple(given.sets),
        tuple(given.arms),
        given.tiny,
    )
    stage = Stage(given.stage, settings)
    if given.stage in KINDS:
        for rate in given.rates:
            stage.run(given.stage, rate)
    else:
        getattr(stage, given.stage)()


if __name__ == "__main__":
    main()
