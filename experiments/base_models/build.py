"""Train the base models of the miniature: a policy on imperfect solutions, and a GenRM on imperfect critiques."""

from __future__ import annotations

import copy
import math
import random
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from experiments.base_models.critiques import OK, WRONG, critique
from experiments.base_models.models import new_model, save, tokenizer
from experiments.base_models.writers import PERFECT, Habits, trace, written
from fapo.config.sampling import Sampling
from fapo.data.files import atomic_path
from fapo.data.jsonl import write_jsonl
from fapo.data.miniature.oracle import examine, is_answer_correct
from fapo.data.miniature.sets import BASE_FOLDER
from fapo.data.miniature.world import EASY, HARDER, Difficulty, Split, Task, apply, line, make, tasks
from fapo.data.steps import split_steps
from fapo.inference.transformers_model import LocalModel
from fapo.judge.template import build_prompt, load_template

EVERYTHING = Difficulty((1, 6), ("exact", "mod 2", "mod 3", "mod 5", "mod 7", "mod 10", "choice"))
"""Difficulty of the tasks for base models: all that RL uses later, and easier ones."""
ONE_LINE = Difficulty((1, 1), (*EASY.forms, *HARDER.forms), start=(0, 180))
"""Difficulty of tasks with one operation, which teach how an answer follows from a value."""
REVIEWED_HABITS = (Habits(), Habits(0.6, 0.2, 0.2, 0.1, 0.1, 0.05, 0.1), Habits(0.8, 0.8, 0.8, 0.8, 0.1, 0.05), PERFECT)
"""Habits of the writers of the solutions that the GenRM learns to review, in equal parts."""
WRITERS = {
    "careless": Habits(borrow_slip=0.1, slip=0.2, easy_slip=0.1),
    "guessing": Habits(guess=0.5),
    "careful": Habits(borrow=0.3, guess=0.03, answer_slip=0.1),
}
"""Habits of the writers that other base policies imitate; the shipped policy imitates Habits()."""
WEAK = Habits(slip=0.45, easy_slip=0.25, answer_slip=0.7)
"""Habits of the writer of the weak start in the comparison of methods; his imitator is right on 15 % of the tasks."""
COLD = Habits(slip=0.75, easy_slip=0.55, answer_slip=0.75)
"""Habits of the writer of a start with hardly any fully correct solution in the comparison of methods."""
LEAPING = Habits(skip=0.3, skip_last=0.3)
"""Habits of the writer of the start in the world where lines may be left out: he leaves out three lines in ten."""
UNFINISHED = replace(WEAK, no_answer=0.9)
"""Habits of the writer of a weak start that gives an answer in one solution of ten."""
REPEATING = replace(WEAK, repeat=0.2)
"""Habits of the writer of a weak start that repeats one line in five."""
STARTS = {"weak": WEAK, "cold": COLD, "leaping": LEAPING, "unfinished": UNFINISHED, "repeating": REPEATING}
"""Habits of the writers that the starts of the comparison of methods imitate."""
HALF_WRONG = Habits(0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0)
"""Habits of the writer of the results that exercises compare."""
CAREFUL = Habits(borrow=0.06, borrow_slip=0.06, slip=0.06, easy_slip=0.06)
"""Habits of the reviewer that the GenRM imitates first."""
HASTY = Habits(borrow=0.2, borrow_slip=0.5, slip=0.4, easy_slip=0.05)
"""Habits of the reviewer that the GenRM imitates last, which flags correct lines more often than it misses flaws."""
LEARNED = re.compile(r"(?<==)\d+(?=\n| \d|$)| (?:ok|no)(?=\n|$)")
"""Text that is learned in exercises: results and marks. The operands are random, so they are not learned."""

Example = tuple[str, str]
"""Message of the user and message of the assistant; an exercise has no message of the user."""
Log = Callable[[str, int, float], None]
"""Progress callback, called with the stage, the step and the loss."""


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate of one stage of the training of a base model."""

    steps: int
    """Number of optimizer steps."""
    batch_size: int
    """Number of examples in one step."""
    learning_rate: float
    """Peak learning rate of a cosine schedule with 50 steps of warm-up."""
    num_exercises: int = 0
    """Number of examples of a step that are exercises in arithmetic."""


def fit(model: Any, examples: Iterator[list[Example]], schedule: Schedule, log: Callable[[int, float], None]) -> None:
    """Fine-tune a model on the messages of the assistant, and in exercises on the parts that match LEARNED."""
    tok = tokenizer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    for step in range(schedule.steps):
        rate = min(1, (step + 1) / 50) * (0.51 + 0.49 * math.cos(math.pi * step / schedule.steps))
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * rate
        inputs, labels = padded_batch(tok, next(examples))
        logits = model(input_ids=inputs).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == schedule.steps - 1:
            log(step, loss.item())
    model.eval()


def padded_batch(tok: Any, examples: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids [B, T] and labels [B, T], padded on the right; labels are -100 where nothing is learned."""
    asked = tok([f"<|user|>{user}<|assistant|>" for user, _ in examples])["input_ids"]
    said = tok([f"{assistant}<|end|>" for _, assistant in examples], return_offsets_mapping=True)
    length = max(len(a) + len(s) for a, s in zip(asked, said["input_ids"], strict=True))
    inputs = torch.full((len(examples), length), tok.pad_token_id)
    labels = torch.full((len(examples), length), -100)
    for i, (a, s, places) in enumerate(zip(asked, said["input_ids"], said["offset_mapping"], strict=True)):
        user, assistant = examples[i]
        learned = None if user else {match.start() for match in LEARNED.finditer(assistant)}
        inputs[i, : len(a) + len(s)] = torch.tensor(a + s)
        labels[i, len(a) : len(a) + len(s)] = torch.tensor(
            [
                token if learned is None or start in learned else -100
                for token, (start, _) in zip(s, places, strict=True)
            ]
        )
    return inputs, labels


def _drawn(rng: random.Random, batch_size: int) -> Iterator[list[Task]]:
    """Yield batches of training tasks with similar numbers of operations."""
    while True:
        pool = sorted((make(rng, EVERYTHING) for _ in range(8 * batch_size)), key=lambda task: len(task.operations))
        batches = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        rng.shuffle(batches)
        yield from batches


def _operations(rng: random.Random) -> Iterator[tuple[int, str, int]]:
    """Yield values, operators and operands from tasks."""
    while True:
        task = make(rng, EVERYTHING)
        for before, operation in zip((task.start, *task.values), task.operations, strict=False):
            yield before, *operation


def sums(seed: int, num: int, num_lines: int = 10) -> Iterator[list[Example]]:
    """Yield batches of `num` exercises, each with `num_lines` correct lines."""
    drawn = _operations(random.Random(seed))
    while True:
        rows = [[next(drawn) for _ in range(num_lines)] for _ in range(num)]
        yield [("", "\n".join(line(*step, apply(*step)) for step in row)) for row in rows]


def comparisons(seed: int, num: int, num_lines: int = 24) -> Iterator[list[Example]]:
    """Yield batches of `num` exercises: lines of two results, the second one often wrong, with the right mark."""
    rng = random.Random(seed)
    drawn = _operations(rng)

    def compared(before: int, operator: str, operand: int) -> str:
        right = apply(before, operator, operand)
        found = written(rng, before, operator, operand, HALF_WRONG)
        return f"{right} {found} {OK if found == right else WRONG}"

    while True:
        rows = [[next(drawn) for _ in range(num_lines)] for _ in range(num)]
        yield [("", "\n".join(compared(*step) for step in row)) for row in rows]


def solution_examples(seed: int, schedule: Schedule, habits: Habits = PERFECT) -> Iterator[list[Example]]:
    """Yield batches of problems with solutions, and of sums."""
    rng, num_traces = random.Random(seed), schedule.batch_size - schedule.num_exercises
    for batch, rest in zip(_drawn(rng, num_traces), sums(seed, schedule.num_exercises), strict=False):
        yield [(task.text, trace(rng, task, habits)) for task in batch] + rest


def answer_examples(seed: int, schedule: Schedule) -> Iterator[list[Example]]:
    """Yield, in turn, many problems of one operation and a few of all kinds, with solutions."""
    rng, few = random.Random(seed), replace(schedule, batch_size=schedule.batch_size // 3)
    solutions = solution_examples(seed, few)
    while True:
        drawn = [make(rng, ONE_LINE) for _ in range(schedule.batch_size)]
        yield [(task.text, trace(rng, task, PERFECT)) for task in drawn]
        yield next(solutions)


def habit_examples(seed: int, schedule: Schedule) -> Iterator[list[Example]]:
    """Yield batches of problems with the imperfect solutions that the shipped policy imitates."""
    return solution_examples(seed, schedule, Habits())


def judge_prompt(task: Task, response: str) -> str:
    """Return the prompt for the GenRM of the miniature."""
    problem = task.problem()
    steps = split_steps(response, "lines")
    return build_prompt(load_template("compact"), problem.text, problem.reference, steps)[-1]["content"]


def genrm_examples(seed: int, schedule: Schedule, reviewer: Habits = CAREFUL) -> Iterator[list[Example]]:
    """Yield batches of solutions by all kinds of writers with critiques, and of exercises: comparisons and sums."""
    rng, num_solutions = random.Random(seed), schedule.batch_size - schedule.num_exercises
    num_sums = schedule.num_exercises // 3
    exercises = zip(comparisons(seed, schedule.num_exercises - num_sums), sums(seed, num_sums), strict=False)
    for batch, (compared, added) in zip(_drawn(rng, num_solutions), exercises, strict=False):
        reviewed = [(task, trace(rng, task, rng.choice(REVIEWED_HABITS))) for task in batch]
        yield [(judge_prompt(*pair), critique(rng, *pair, reviewer)) for pair in reviewed] + compared + added


def hasty_examples(seed: int, schedule: Schedule) -> Iterator[list[Example]]:
    """Yield the batches of `genrm_examples` with critiques of the over-critical reviewer."""
    return genrm_examples(seed, schedule, HASTY)


def critic_data(policy: LocalModel, seed: int, num: int, part: Split) -> list[dict[str, Any]]:
    """Return `num` correct solutions of the policy, half of them flawed, with the labels of the oracle."""
    correct: list[dict[str, Any]] = []
    flawed: list[dict[str, Any]] = []
    stream = tasks(seed, 100 * num, split=part)
    while min(len(correct), len(flawed)) < num // 2:
        batch = [task for task, _ in zip(stream, range(512), strict=False)]
        answers = policy.generate([[{"role": "user", "content": task.text}] for task in batch])
        for task, answer in zip(batch, answers, strict=True):
            steps = [step.strip() for step in split_steps(answer.text, "lines")]
            shown = "\n".join(steps)  # the text that a judge sees
            if not is_answer_correct(task, shown):
                continue
            found = examine(task, shown)
            problem = task.problem(f"miniature-critic-{part}")
            label = -1 if found.error_step is None else found.error_step
            row: dict[str, Any] = {"id": problem.id, "problem": problem.text, "reference": problem.reference}
            row |= {"steps": steps, "label": label, "flaw": found.flaw}
            (correct if label < 0 else flawed).append(row)
    rows = correct[: num // 2] + flawed[: num // 2]
    random.Random(seed).shuffle(rows)
    return rows


SCHEDULES = {
    "sums": Schedule(steps=1800, batch_size=72, learning_rate=3e-3, num_exercises=48),
    "solutions": Schedule(steps=1000, batch_size=64, learning_rate=2e-3, num_exercises=8),
    "answers": Schedule(steps=800, batch_size=192, learning_rate=2e-3, num_exercises=8),
    "habits": Schedule(steps=300, batch_size=64, learning_rate=1e-3),
    "comparisons": Schedule(steps=800, batch_size=44, learning_rate=1.5e-3, num_exercises=24),
    "critiques": Schedule(steps=560, batch_size=54, learning_rate=1.5e-3, num_exercises=6),
    "hasty critiques": Schedule(steps=200, batch_size=54, learning_rate=1e-3, num_exercises=6),
}
"""Schedule of each stage: first skills, then habits.

The policy has the first four stages. The GenRM starts from the policy after "solutions" and has the last three.
"""
IMITATION = Schedule(steps=150, batch_size=64, learning_rate=1e-3)
"""Schedule of a base policy that imitates one of WRITERS or STARTS."""


def build(
    folder: Path, seed: int = 0, log: Log = lambda *_: None, schedules: Mapping[str, Schedule] = SCHEDULES
) -> None:
    """Train both base models from nothing and write them, with the critic data, into a folder.

    Each finished stage is kept in `folder/stages-SEED` until the end, so that an interrupted build can be continued.

    Args:
        folder: Output folder.
        seed: Random seed.
        log: Progress callback; the loss is NaN for a stage that an earlier call finished.
        schedules: Schedule of each stage.
    """
    stages = folder / f"stages-{seed}"

    def stage(model: Any, name: str, examples: Callable[[int, Schedule], Iterator[list[Example]]], offset: int) -> Any:
        schedule, kept = schedules[name], stages / name.replace(" ", "-")
        if kept.is_dir():
            log(name, schedule.steps - 1, math.nan)
            return AutoModelForCausalLM.from_pretrained(kept, use_safetensors=True, trust_remote_code=False)
        fit(model, examples(seed + offset, schedule), schedule, lambda step, loss: log(name, step, loss))
        with atomic_path(kept) as draft:
            save(model, draft)
        return model

    model = stage(new_model(seed), "sums", solution_examples, 0)
    model = stage(model, "solutions", solution_examples, 1)
    judge = copy.deepcopy(model)
    model = stage(model, "answers", answer_examples, 2)
    model = stage(model, "habits", habit_examples, 3)
    save(model, folder / "policy")
    judge = stage(judge, "comparisons", genrm_examples, 4)
    judge = stage(judge, "critiques", genrm_examples, 5)
    judge = stage(judge, "hasty critiques", hasty_examples, 6)
    save(judge, folder / "genrm")

    sampler = LocalModel(model, tokenizer(), Sampling(max_tokens=64, temperature=1.0), batch_size=512)
    parts: tuple[tuple[Split, int], ...] = (("train", 4096), ("test", 1024))
    for part, num in parts:
        torch.manual_seed(seed)
        write_jsonl(folder / f"critic-{part}.jsonl", critic_data(sampler, seed + 10, num, part))
    shutil.rmtree(stages)


def imitate(writer: str, folder: Path, seed: int, log: Log = lambda *_: None, schedule: Schedule = IMITATION) -> None:
    """Train the base policy on solutions of one of WRITERS or STARTS, and write it, unless the folder exists."""
    if folder.is_dir():
        return
    model = AutoModelForCausalLM.from_pretrained(BASE_FOLDER / "policy", use_safetensors=True, trust_remote_code=False)
    examples = solution_examples(seed, schedule, (WRITERS | STARTS)[writer])
    fit(model, examples, schedule, lambda step, loss: log(writer, step, loss))
    with atomic_path(folder) as draft:
        save(model, draft)
