"""Build the base models of the miniature, and repeat its runs over seeds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from tyro.conf import Positional

from fapo.cli.app import console
from fapo.cli.critic import critiques
from fapo.cli.demo import run_and_report, run_with_bars
from fapo.cli.progress import progress_bars
from fapo.config.sampling import Sampling
from fapo.training.critic_data.settings import CritiquesSettings
from fapo.training.run_reader import read_run

WorldName = Literal[
    "today",
    "weak",
    "cold",
    "known",
    "unfinished",
    "doubtful",
    "useless",
    "longer",
    "cascade",
    "exposed",
    "leaps",
    "repeats",
]
"""Names of `experiments.paper.runs.WORLDS`, which is imported later because it is slow."""


def miniature(
    action: Positional[Literal["build", "study", "paper", "comparison"]],
    /,
    *,
    output: Path | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
    docs: Path | None = None,
    workers: int = 2,
    worlds: tuple[WorldName, ...] = (),
) -> None:
    """Build the base models of the miniature, repeat its runs over seeds, or compare ways to use a verdict.

    Args:
        action: build: train the base policy and the base GenRM from nothing with the first seed (about half an hour
            on two cores). study: run the demo with each seed, and train a GenRM on outcomes alone. paper: run the
            study and every other run behind the figures and tables of the paper (about half an hour a seed on two
            cores). comparison: train each arm of the comparison of methods in each world with each seed (about an hour
            a seed on two cores).
        output: Output folder; by default that of the base models in the package, or runs/ACTION.
        seeds: Seeds of the runs.
        docs: Folder for the page of `paper` or `comparison`; by default the output folder.
        workers: Number of runs of `comparison` at the same time, each on one processor core.
        worlds: Worlds of `comparison`; none for all. The page has all finished runs in the output folder and
            those that are in its results.json already.
    """
    if action == "study":
        from experiments.paper.claims import print_claims
        from experiments.paper.runs import study_jobs

        folder = output or Path("runs/study")
        jobs = study_jobs(folder, seeds)
        run_and_report(jobs, folder)
        print_claims([read_run(job.folder(folder)) for job in jobs], Console())
        return
    if action == "paper":
        from experiments.base_models.build import IMITATION, WRITERS, imitate
        from experiments.paper.page import write_findings
        from experiments.paper.runs import critiques_file, paper_jobs, policy_folder

        folder = output or Path("runs/paper")
        for seed in seeds:
            file, base = critiques_file(folder, seed), ("local:miniature:genrm",)
            settings = CritiquesSettings(
                data="miniature:critic-train",
                judge=base,
                out=file,
                samples=2,
                template="compact",
                sampling=Sampling(temperature=1.0, max_tokens=80),
                seed=seed,
            )
            critiques(settings=settings)
        with progress_bars() as bars:
            ids = {name: bars.add_task(f"{name} base policies", total=IMITATION.steps, note="") for name in WRITERS}
            for seed in seeds:
                for writer in WRITERS:
                    imitate(
                        writer,
                        policy_folder(folder, writer, seed),
                        seed,
                        lambda name, step, loss: bars.update(ids[name], completed=step + 1, note=f"loss {loss:.3f}"),
                    )
        run_with_bars(paper_jobs(folder, seeds), folder)
        console.line(f"page: {write_findings(folder, docs or folder)}")
        return
    if action == "comparison":
        from experiments.base_models.build import STARTS, imitate
        from experiments.paper.comparison import write_comparison
        from experiments.paper.runs import WORLDS, comparison_jobs, policy_folder, prm_folder
        from tests.support.prm import train_prm

        folder = output or Path("runs/comparison")
        for name in STARTS:
            imitate(name, policy_folder(folder, name, 0), 0)
        if not prm_folder(folder).exists():
            train_prm(prm_folder(folder))
        run_with_bars(comparison_jobs(folder, seeds, worlds or tuple(WORLDS)), folder, workers)
        console.line(f"page: {write_comparison(folder, docs or folder)}")
        return
    from experiments.base_models.build import SCHEDULES, build
    from fapo.data.miniature.sets import BASE_FOLDER

    with progress_bars() as bars:
        ids = {name: bars.add_task(f"base {name}", total=s.steps, note="") for name, s in SCHEDULES.items()}

        def log(name: str, step: int, loss: float) -> None:
            bars.update(
                ids[name], completed=step + 1, note="from an earlier call" if math.isnan(loss) else f"loss {loss:.3f}"
            )

        build(output or BASE_FOLDER, seeds[0], log)


if __name__ == "__main__":
    tyro.cli(miniature, prog="python -m experiments.miniature")
