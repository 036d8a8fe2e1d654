"""Accuracy of the base policy before training, sampled by the server of `cpu.rollout` and by `LocalModel`.

PYTHONPATH=src:tests/verl .venv-verl/bin/python -m tests.verl.sampling --samplings 20
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev

import torch
from cpu.rollout import Server

from fapo.config.reader import load
from fapo.config.sampling import Sampling
from fapo.inference.models import model_folder
from fapo.inference.transformers_model import LocalModel
from fapo.rewards.verify import acheck_answers
from fapo.training.datasets import Example, load_sets
from tests.support.verl_runs import POLICY


def accuracy(examples: Sequence[Example], texts: Sequence[str]) -> float:
    pairs = [(text, example.problem.reference) for text, example in zip(texts, examples, strict=True)]
    return fmean(check.correct for check in asyncio.run(acheck_answers(pairs)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplings", type=int, default=20)
    given = parser.parse_args()
    config = load(POLICY, ["data.limit=1", "rollout.num_prompts=1"])
    path, limit = model_folder(config.model.path), config.rollout.max_tokens
    model, server = LocalModel.load(path, Sampling(max_tokens=limit, temperature=1.0)), Server(path, limit, 0)
    for name in config.data.validation:
        examples = load_sets(config)[name]
        asked = [
            (model.tokenizer.apply_chat_template(e.prompt, add_generation_prompt=True, return_dict=False), {}, None)
            for e in examples
        ]
        found: dict[str, list[float]] = {"server": [], "LocalModel": []}
        for seed in range(given.samplings):
            torch.manual_seed(seed)
            tokens = [output.token_ids for output in server._sample(asked)]
            texts = [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in tokens]
            found["server"].append(accuracy(examples, texts))
            answers = replace(model, seed=seed).generate([e.prompt for e in examples])
            found["LocalModel"].append(accuracy(examples, [answer.text for answer in answers]))
        for sampler, values in found.items():
            print(f"{name}, {sampler}: {fmean(values):.3f}, standard deviation of one sampling {stdev(values):.3f}")


if __name__ == "__main__":
    main()
