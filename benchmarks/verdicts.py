"""Measure verdicts per second of a local GenRM: LocalModel against the generate method of transformers.

python -m benchmarks.verdicts [--quick] [--rounds 3] [--solutions 512] [--model miniature:genrm]

All sides judge the held-out critic rows of the miniature with one model, one prompt and greedy decoding, in one
process. Sides:

    LocalModel        batches of conversations of similar length
    arrival order     generate on padded batches of the same size, in the order of the rows
    one by one        generate on each row alone; only on the first rows, since it is slow, so compare its rate
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.measuring.turns import cost_of, in_turn, machine, ratios, spread
from fapo.config.sampling import Sampling
from fapo.data.miniature.sets import labelled
from fapo.inference.models import model_folder
from fapo.inference.transformers_model import LocalModel
from fapo.judge.template import build_prompt, load_template
from fapo.judge.verdicts import parse_verdict
from fapo.types import Message

BATCH = 64
"""Conversations in one call of generate."""
MAX_TOKENS = 80
"""Length limit of a critique."""
NUM_ALONE = 32
"""Number of solutions that are judged one by one."""

Side = Callable[[Sequence[list[Message]]], list[str]]


@torch.no_grad()
def plain(local: LocalModel, conversations: Sequence[list[Message]], size: int) -> list[str]:
    """Generate as in the documentation of transformers: template, pad, generate, remove the prompt, decode."""
    texts: list[str] = []
    for start in range(0, len(conversations), size):
        inputs: Any = local.tokenizer.apply_chat_template(
            list(conversations[start : start + size]),
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        )
        out = local.model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=MAX_TOKENS,
            do_sample=False,
            pad_token_id=local.tokenizer.pad_token_id,
        )
        new = out[:, inputs["input_ids"].shape[1] :]
        texts += local.tokenizer.batch_decode(new, skip_special_tokens=True)
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 solutions, one round")
    parser.add_argument("--rounds", type=int, help="turns of each side (default 3)")
    parser.add_argument("--solutions", type=int, help="default 512")
    parser.add_argument("--model", default="miniature:genrm", help="a model to load here")
    given = parser.parse_args()
    num = given.solutions or (64 if given.quick else 512)
    local = LocalModel.load(model_folder(given.model), Sampling(max_tokens=MAX_TOKENS), batch_size=BATCH)
    template, rows = load_template("compact"), labelled("miniature:critic-test", num)
    asked = [build_prompt(template, row.problem.text, row.problem.reference, row.steps) for row in rows]
    sides: dict[str, Side] = {
        "LocalModel": lambda chats: [answer.text for answer in local.generate(chats)],
        "arrival order": lambda chats: plain(local, chats, BATCH),
        "one by one": lambda chats: plain(local, chats[:NUM_ALONE], 1),
    }
    for side in sides.values():
        side(asked[:2])

    results = in_turn(
        {name: lambda _, side=side: cost_of(lambda: side(asked)) for name, side in sides.items()},
        given.rounds or (1 if given.quick else 3),
    )
    print(f"{len(asked)} solutions, {local.model.num_parameters() / 1e6:.2f} M parameters, batches of {BATCH}, greedy")
    rates = {name: [len(texts) / cost.seconds for cost, texts in turns] for name, turns in results.items()}
    for name, values in rates.items():
        print(f"{name:15s} {spread(values, 1)} verdicts/s")
    verdicts = {
        name: [parse_verdict(text, len(row.steps)).error_step for text, row in zip(turns[0][1], rows, strict=False)]
        for name, turns in results.items()
    }
    for name in list(sides)[1:]:
        same = statistics.mean(a == b for a, b in zip(verdicts["LocalModel"], verdicts[name], strict=False))
        print(f"LocalModel / {name}: {spread(ratios(rates['LocalModel'], rates[name]))}, {same:.1%} the same verdict")
    print(machine("fapo", "transformers", "torch"), f"{torch.get_num_threads()} threads", sep=", ")


if __name__ == "__main__":
    main()
