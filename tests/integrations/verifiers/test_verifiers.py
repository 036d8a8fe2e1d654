"""A real evaluation by verifiers with our judge plugged in; `make test-verifiers` has the environment.

The policy is a server that answers with known solutions. The judge is a scripted server, then the miniature's GenRM.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from fapo.data.jsonl import write_jsonl
from fapo.data.miniature.sets import labelled
from fapo.inference.client import ChatClient
from fapo.inference.models import model_folder
from fapo.judge.genrm import GenRM
from fapo.judge.template import load_template
from fapo.types import Problem, Rollout, Verdict
from tests.support.chat_server import Reply, chat_server
from tests.support.paths import SOURCE
from tests.support.transformers_server import model_server

pytest.importorskip("verifiers", reason="needs verifiers: make test-verifiers")
pytestmark = pytest.mark.slow

TASKSET = Path(__file__).parent / "taskset"


def streamed(text: str) -> Reply:
    """Return a chat completion as a stream of events, which verifiers asks for."""
    chunk: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    delta = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
    events = [
        chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage},
    ]
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return Reply(body="".join([*lines, "data: [DONE]\n\n"]).encode())


def evaluate(folder: Path, rollouts: list[Rollout], judge_url: str, **judge: Any) -> list[dict[str, Any]]:
    """Return the traces of an evaluation in which the policy writes these rollouts, in their order."""
    rows = folder / "rows.jsonl"
    write_jsonl(rows, [{"problem": r.problem.text, "reference": r.problem.reference} for r in rollouts])
    responses = {r.problem.text: r.response for r in rollouts}
    settings = {"id": "fapo", "base_url": judge_url, "api_key_var": "NO_KEY", **judge}
    with chat_server(lambda body, _: streamed(responses[body["messages"][-1]["content"]])) as policy:
        (folder / "eval.toml").write_text(
            "\n".join(
                (
                    'model = "policy"\n[client]',
                    f'base_url = "{policy.url}"\napi_key_var = "NO_KEY"',
                    '[env.taskset]\nid = "solved"\n[[env.taskset.task.judges]]',
                    *(f"{key} = {json.dumps(value)}" for key, value in settings.items()),
                    '[env.agent.harness]\nid = "null"\n[env.agent.runtime]\ntype = "subprocess"',
                )
            ),
            encoding="utf-8",
        )
        command = [sys.executable, "-c", "from verifiers.v1.cli.eval.main import main; main()", "@", "eval.toml"]
        command += ["--no-push", "--no-rich", "-o", "out", "--run.name", "run"]
        paths = os.pathsep.join(map(str, (SOURCE, TASKSET)))
        known = {**os.environ, "PYTHONPATH": paths, "SOLVED_ROWS": str(rows), "NO_KEY": "none"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=folder, env=known)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (folder / "out" / "run" / "traces.jsonl").read_text(encoding="utf-8").splitlines()
    traces = [trace for episode in map(json.loads, lines) for trace in episode.get("traces", [episode])]
    return sorted(traces, key=lambda trace: int(trace["task"]["data"]["idx"]))


def score(trace: dict[str, Any], name: str) -> float | None:
    """Return one reward of a trace; None if it was not computed."""
    reward = trace["rewards"][name]
    return None if reward is None else reward["score"]


def test_the_version_that_the_documentation_names() -> None:
    assert version("verifiers").startswith("0.4.")


def test_right_rollouts_are_judged_and_flawed_ones_get_less(tmp_path: Path) -> None:
    answers = {"fine": "\\boxed{-1}", "flawed": "Step 0.\n\\boxed{0}", "wrong": "", "unsure": "I cannot say."}
    answers |= {"cut off": "\\boxed{0} " + "so " * 20}
    rollouts = [
        Rollout(Problem(name, f"What is 1+1? ({name})", "2"), f"1+1=2\n\nSo \\boxed{{{3 if name == 'wrong' else 2}}}.")
        for name in answers
    ]

    def critique(body: dict[str, Any], _: int) -> Reply:
        asked = str(body["messages"])
        return Reply(next(text for name, text in answers.items() if f"({name})" in asked))

    with chat_server(critique) as judge:
        traces = evaluate(tmp_path, rollouts, judge.url, model="judge", penalty=0.75, max_tokens=20)
    assert [score(trace, "right") for trace in traces] == [1.0, 1.0, 0.0, 1.0, 1.0]
    assert [score(trace, "fapo") for trace in traces] == [0.0, -0.75, 0.0, None, None]
    assert [trace["metrics"].get("flawed_positive") for trace in traces] == [0.0, 1.0, None, None, None]
    assert [trace["ok"] for trace in traces] == [True, True, True, False, False], "prime-rl leaves out the last two"
    reasons = [[error["message"] for error in trace.get("errors", [])] for trace in traces]
    assert [len(found) for found in reasons] == [0, 0, 0, 1, 1]
    assert "no verdict" in reasons[3][0] and "length limit" in reasons[4][0]
    assert len(judge.requests) == 4 and all(request["max_tokens"] == 20 for request in judge.requests)
    assert traces[1]["info"]["judge_calls"][0]["response"]["message"]["content"] == answers["flawed"]


def test_the_genrm_of_the_miniature_gives_the_same_verdicts(tmp_path: Path) -> None:
    genrm = Path(model_folder("miniature:genrm"))
    solutions = [row for row in labelled("miniature:critic-test", 24) if row.correct][:8]
    rollouts = [Rollout(row.problem, "\n\n".join(row.steps)) for row in solutions]

    async def expected(url: str) -> list[Verdict]:
        client = ChatClient([url], "genrm", temperature=0.0, max_tokens=80, timeout=600.0)
        verdicts = await GenRM(load_template("compact"), client)(rollouts)
        await client.aclose()
        return verdicts

    with model_server("genrm", tmp_path / "log", cwd=genrm.parent) as server:
        verdicts = asyncio.run(expected(server.url))
        settings = {"model": "genrm", "template": "compact", "max_tokens": 80, "sampling.temperature": 0.0}
        traces = evaluate(tmp_path, rollouts, server.url, **settings)
    flawed = [verdict.flawed for verdict in verdicts]
    assert True in flawed and False in flawed
    assert [score(trace, "fapo") for trace in traces] == [-0.5 if found else 0.0 for found in flawed]
