"""The models and the critic data of the miniature that are part of the package."""

from __future__ import annotations

import asyncio

import pytest
import torch

from fapo.config.sampling import Sampling
from fapo.data.miniature.oracle import examine, is_answer_correct
from fapo.data.miniature.sets import BASE_FOLDER, labelled
from fapo.data.miniature.world import parse, split_of, tasks
from fapo.inference.models import model_folder
from fapo.inference.transformers_model import LocalModel
from fapo.judge.genrm import GenRM
from fapo.judge.template import load_template

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(
            (BASE_FOLDER / name).exists() for name in ("policy", "genrm", "critic-train.jsonl", "critic-test.jsonl")
        ),
        reason="the base models of the miniature are not there; make them with `python -m experiments.miniature build`",
    ),
]


def test_the_policy_often_has_a_correct_answer_with_a_flaw() -> None:
    torch.manual_seed(0)
    model = LocalModel.load(model_folder("miniature:policy"), Sampling(max_tokens=64, temperature=1.0))
    drawn = list(tasks(0, 200, split="validation"))
    answers = model.generate([[{"role": "user", "content": task.text}] for task in drawn])
    pairs = [(task, answer.text) for task, answer in zip(drawn, answers, strict=True)]
    right = [examine(*pair) for pair in pairs if is_answer_correct(*pair)]
    # LOG.md: accuracy .39, FP ratio .38; four standard deviations of 200 samples
    assert 0.25 < len(right) / len(pairs) < 0.53
    assert 0.16 < sum(truth.error_step is not None for truth in right) / len(right) < 0.60


def test_the_genrm_writes_valid_and_correct_verdicts() -> None:
    model = LocalModel.load(model_folder("miniature:genrm"), Sampling(max_tokens=80))
    solutions = labelled("miniature:critic-test", 200)
    judge = GenRM(load_template("compact"), model)
    verdicts = asyncio.run(judge.judge_steps([(s.problem, s.steps) for s in solutions]))
    assert sum(v.status == "ok" for v in verdicts) / len(verdicts) > 0.95
    right = sum(v.flawed == (s.error_step is not None) for v, s in zip(verdicts, solutions, strict=True))
    assert right / len(verdicts) > 0.93


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_labels_are_those_of_the_oracle(part: str) -> None:
    for solution in labelled(f"miniature:critic-{part}"):
        task = parse(solution.problem.text)
        response = "\n".join(solution.steps)
        assert is_answer_correct(task, response)
        assert examine(task, response).error_step == solution.error_step
        assert split_of(task.start, task.operations) == part
