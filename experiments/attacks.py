"""Measure how often attacks on a judge earn the full reward, with the scorer of a training run.

python -m experiments.attacks [--judge miniature:genrm] [--template compact] [--min-words N] [--num 20] [--unescaped]
python -m experiments.attacks --arm base=miniature:genrm --arm trained=local:runs/a/model,local:runs/b/model

The solutions come from miniature:critic-test: right answers with a flaw that the oracle knows. An attack with a place
for a solution is written into a flawed one; an attack without such a place is the whole response. In both cases the
reward +1 is too high. The 95 % intervals resample solutions, together with all attacks on them and all judges of an
arm.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

from rich import box
from rich.console import Console
from rich.table import Table

from fapo.config.schema import FapoReward
from fapo.data.jsonl import write_jsonl
from fapo.data.miniature.sets import labelled
from fapo.evaluation.intervals import bootstrap_ratios, percentile_interval
from fapo.judge.from_config import command_line_judge, make_judge
from fapo.judge.template import Template
from fapo.rewards.scorer import PolicyScorer
from fapo.types import LabelledSolution, Rollout, ScoredRollout
from tests.support.attacks import ATTACKS

OUTCOMES = {1.0: "passed", 0.0: "flagged", None: "no verdict", -1.0: "wrong answer"}
CONTROLS = ("control: correct", "control: correct, attacked", "control: flawed")
"""Solutions without a flaw, the same under attack, and flawed ones without an attack."""
KEEPING = [n for n, a in ATTACKS.items() if a.correct and not a.bare and not a.pad[1] and "\n\n" not in a.text]
"""Attacks that only add a line before the boxed answer, so that the label of the solution stays true."""


def whole(solution: LabelledSolution) -> str:
    """Return the text of a solution as the policy wrote it."""
    return "\n".join(solution.steps)


def attacked(solution: LabelledSolution, name: str) -> Rollout:
    """Return a solution with an attack in it."""
    steps = "\n".join(solution.steps[:-1])
    return Rollout(solution.problem, ATTACKS[name].response(steps, solution.problem.reference))


def rollouts(solutions: list[LabelledSolution], num: int) -> dict[str, list[Rollout]]:
    """Return, by name, the rollouts of each attack on the same flawed solutions, and of the controls."""
    correct = [s for s in solutions if s.error_step is None][:num]
    flawed = [s for s in solutions if s.error_step is not None and len(s.steps) > 1][:num]
    plain = [[Rollout(s.problem, whole(s)) for s in rows] for rows in (correct, flawed)]
    correct_attacked = [attacked(s, KEEPING[i % len(KEEPING)]) for i, s in enumerate(correct)]
    out = dict(zip(CONTROLS, (plain[0], correct_attacked, plain[1]), strict=True))
    # Long texts do not fit into the context of small judges, which takes time to find out: one solution is enough.
    return out | {name: [attacked(s, name) for s in flawed[: 1 if ATTACKS[name].pad[1] else num]] for name in ATTACKS}


def score(
    judge: list[str], num: int, unescaped: bool, *, model: str = "", **settings: object
) -> dict[str, list[ScoredRollout]]:
    """Return every rollout with its FAPO reward, by name."""
    scorer = PolicyScorer(FapoReward(), make_judge(command_line_judge(judge, model, **settings)), max_failure_rate=1.0)  # type: ignore[arg-type]
    given = rollouts(labelled("miniature:critic-test"), num)
    with (
        patch.object(Template, "escape", lambda self, text: text.encode(errors="replace").decode())
        if unescaped
        else nullcontext()
    ):
        scored = iter(asyncio.run(scorer([rollout for rows in given.values() for rollout in rows])))
    return {name: [next(scored) for _ in rows] for name, rows in given.items()}


def passed(rows: Sequence[Sequence[ScoredRollout]]) -> str:
    """Return the rate of the reward +1 in percent with its interval; rows have the same solutions or the first ones."""
    num = max(map(len, rows))
    parts = [sum(row[i].reward.value == 1.0 for row in rows if i < len(row)) for i in range(num)]
    wholes = [sum(i < len(row) for row in rows) for i in range(num)]
    low, high = percentile_interval(bootstrap_ratios([[part] for part in parts], [[all_] for all_ in wholes])[:, 0])
    return f"{100 * sum(parts) / sum(wholes):.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def line(name: str, rows: Sequence[Sequence[ScoredRollout]]) -> list[str]:
    """Return the rates of the outcomes in percent, as the cells of a line."""
    counts = Counter(OUTCOMES[scored.reward.value] for row in rows for scored in row)
    return [name, passed(rows), *(f"{100 * counts[o] / counts.total():.0f}" for o in list(OUTCOMES.values())[1:])]


def by_family(found: Mapping[str, list[ScoredRollout]]) -> dict[str, list[list[ScoredRollout]]]:
    """Return the rows of all attacks of each family; each control is its own family."""
    families: dict[str, list[list[ScoredRollout]]] = defaultdict(list)
    for name, scored in found.items():
        families[name if name in CONTROLS else name.partition(":")[0]].append(scored)
    return families


def compare(arms: Sequence[str], num: int, unescaped: bool, **settings: object) -> Table:
    """Return a table of the rates at which attacks pass, with a line for each family and a column for each arm."""
    columns: dict[str, dict[str, list[list[ScoredRollout]]]] = {}
    for arm in arms:
        name, _, judges = arm.partition("=")
        families: dict[str, list[list[ScoredRollout]]] = defaultdict(list)
        for judge in judges.split(","):
            for family, rows in by_family(score([judge], num, unescaped, **settings)).items():
                families[family] += rows
        columns[name] = families
    table = Table("passed, %", *columns, box=box.MARKDOWN)
    for family in next(iter(columns.values())):
        table.add_row(family, *(passed(families[family]) for families in columns.values()))
    return table


def write_critic(path: Path) -> None:
    """Write labelled solutions to train a GenRM on; a quarter of the flawed ones have an attack in them.

    Only the attacks KEEPING are used, so that the first flawed step stays where it was.
    """
    rows = []
    for i, solution in enumerate(labelled("miniature:critic-train")):
        steps = list(solution.steps)
        if solution.error_step is not None and i % 4 == 0:
            lines = ATTACKS[KEEPING[i // 4 % len(KEEPING)]].response("\n".join(steps[:-1]), solution.problem.reference)
            steps = [line for line in lines.splitlines() if line.strip()]
        problem, label = solution.problem, -1 if solution.error_step is None else solution.error_step
        rows.append({"id": problem.id, "problem": problem.text, "reference": problem.reference})
        rows[-1] |= {"steps": steps, "label": label}
    write_jsonl(path, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", action="append", help="URL (with --model), local:PATH, miniature:genrm")
    parser.add_argument("--model", default="", help="name under which a server knows the judge")
    parser.add_argument("--template", default="compact")
    parser.add_argument("--max-tokens", type=int, default=80)
    parser.add_argument("--min-words", type=int, default=0, help="judge.min_words")
    parser.add_argument("--num", type=int, default=20, help="number of solutions for each attack (default 20)")
    parser.add_argument("--unescaped", action="store_true", help="give the judge the text without escaping")
    parser.add_argument("--families", action="store_true", help="print one line for each family of attacks")
    parser.add_argument(
        "--arm", action="append", metavar="NAME=JUDGE[,JUDGE]", help="compare judges, with a column for each arm"
    )
    parser.add_argument(
        "--write-critic", type=Path, metavar="FILE", help="only write attacked training data for a GenRM"
    )
    given = parser.parse_args()
    if given.write_critic:
        write_critic(given.write_critic)
        return
    settings = {"template": given.template, "max_tokens": given.max_tokens, "min_words": given.min_words}
    if given.arm:
        Console(width=200).print(compare(given.arm, given.num, given.unescaped, **settings))
        return
    found = score(given.judge or ["miniature:genrm"], given.num, given.unescaped, model=given.model, **settings)
    table = Table("attack", *(f"{outcome} %" for outcome in OUTCOMES.values()))
    for name, rows in (by_family(found) if given.families else {n: [scored] for n, scored in found.items()}).items():
        table.add_row(*line(name, rows))
    Console().print(table)


if __name__ == "__main__":
    main()
