"""The base models of the miniature: a policy that learned from imperfect traces, a GenRM from noisy critiques."""

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
from fapo.data.files import atomic_path
from fapo.data.jsonl import write_jsonl
from fapo.data.miniature.oracle import examine, is_answer_correct
from fapo.data.miniature.sets import BASE_FOLDER
from fapo.data.miniature.world import EASY, HARDER, Difficulty, Split, Task, apply, line, make, tasks
from fapo.data.steps import split_steps
from fapo.inference.transformers_model import LocalModel
from fapo.judge.template import build_prompt, load_template

EVERYTHING = Difficulty((1, 6), ("exact", "mod 2", "mod 3", "mod 5", "mod 7", "mod 10", "choice"))
"""What the base models see: all that is asked later, and easier."""
ONE_LINE = Difficulty((1, 1), (*EASY.forms, *HARDER.forms), start=(0, 180))
"""From which one learns what follows from a value: its remainder, the letter of the nearest choice."""
REVIEWED_HABITS = (Habits(), Habits(0.6, 0.2, 0.2, 0.1, 0.1, 0.05, 0.1), Habits(0.8, 0.8, 0.8, 0.8, 0.1, 0.05), PERFECT)
"""Kinds of writers whose solutions the GenRM learns to review, in equal parts."""
WRITERS = {
    "careless": Habits(borrow_slip=0.1, slip=0.2, easy_slip=0.1),
    "guessing": Habits(guess=0.5),
    "careful": Habits(borrow=0.3, guess=0.03, answer_slip=0.1),
}
"""Whom other base policies imitate; the shipped one imitates Habits()."""
HALF_WRONG = Habits(0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0)
"""The writer of what is compared in exercises."""
CAREFUL = Habits(borrow=0.06, borrow_slip=0.06, slip=0.06, easy_slip=0.06)
"""The reviewer from whom the GenRM learns to read."""
HASTY = Habits(borrow=0.2, borrow_slip=0.5, slip=0.4, easy_slip=0.05)
"""The reviewer it imitates last: an over-critic, which flags sound lines more often than it passes flawed ones."""
LEARNED = re.compile(r"(?<==)\d+(?=\n| \d|$)| (?:ok|no)(?=\n|$)")
"""What is learned of exercises without a question: right results and marks; operands are anybody's guess."""

Example = tuple[str, str]
"""What the user says, what the assistant says."""
Log = Callable[[str, int, float], None]
"""Told now and then: which model, the step, the loss."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a base model learns."""

    steps: int
    """Optimizer steps."""
    batch_size: int
    """Examples of one step."""
    learning_rate: float
    """Peak of a cosine with 50 steps of warm-up."""
    num_exercises: int = 0
    """How many of a step's examples are exercises without a question: these teach arithmetic, and keep it."""


def fit(model: Any, examples: Iterator[list[Example]], schedule: Schedule, log: Callable[[int, float], None]) -> None:
    """Supervised fine-tuning on what the assistant says; of exercises without a question, on what is LEARNED."""
    tok = tokenizer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    for step in range(schedule.steps):
        rate = min(1, (step + 1) / 50) * (0.51 + 0.49 * math.cos(math.pi * step / schedule.steps))
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * rate
        inputs, labels = _batch(tok, next(examples))
        logits = model(input_ids=inputs).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == schedule.steps - 1:
            log(step, loss.item())
    model.eval()


def _batch(tok: Any, examples: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels [batch, length], padded on the right; labels are -100 where nothing is learned."""
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
    """Batches of training tasks of similar length."""
    while True:
        pool = sorted((make(rng, EVERYTHING) for _ in range(8 * batch_size)), key=lambda task: len(task.operations))
        batches = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        rng.shuffle(batches)
        yield from batches


def _operations(rng: random.Random) -> Iterator[tuple[int, str, int]]:
    """Value, operator and operand, as they come in tasks."""
    while True:
        task = make(rng, EVERYTHING)
        for before, operation in zip((task.start, *task.values), task.operations, strict=False):
            yield before, *operation


def sums(seed: int, num: int, num_lines: int = 10) -> Iterator[list[Example]]:
    """Batches of `num` exercises, each so many right lines."""
    drawn = _operations(random.Random(seed))
    while True:
        rows = [[next(drawn) for _ in range(num_lines)] for _ in range(num)]
        yield [("", "\n".join(line(*step, apply(*step)) for step in row)) for row in rows]


def comparisons(seed: int, num: int, num_lines: int = 24) -> Iterator[list[Example]]:
    """Batches of `num` exercises: two results, the second one wrong half the time, and the mark."""
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
    """Questions with solutions, and sums."""
    rng, num_traces = random.Random(seed), schedule.batch_size - schedule.num_exercises
    for batch, rest in zip(_drawn(rng, num_traces), sums(seed, schedule.num_exercises), strict=False):
        yield [(task.text, trace(rng, task, habits)) for task in batch] + rest


def answer_examples(seed: int, schedule: Schedule) -> Iterator[list[Example]]:
    """In turn many questions of one operation and a few of all kinds, with solutions."""
    rng, few = random.Random(seed), replace(schedule, batch_size=schedule.batch_size // 3)
    solutions = solution_examples(seed, few)
    while True:
        drawn = [make(rng, ONE_LINE) for _ in range(schedule.batch_size)]
        yield [(task.text, trace(rng, task, PERFECT)) for task in drawn]
        yield next(solutions)


def habit_examples(seed: int, schedule: Schedule) -> Iterator[list[Example]]:
    """Questions with the imperfect solutions of a writer who forgets, guesses and boxes what does not follow."""
    return solution_examples(seed, schedule, Habits())


def judge_prompt(task: Task, response: str) -> str:
    """What the miniature's GenRM is asked, by the same builder as everywhere."""
    problem = task.problem()
    return build_prompt(load_template("compact"), problem.text, problem.reference, split_steps(response))[-1]["content"]


def genrm_examples(seed: int, schedule: Schedule, reviewer: Habits = CAREFUL) -> Iterator[list[Example]]:
    """Solutions of all kinds of writers with critiques, and exercises: comparisons, and half as many sums."""
    rng, num_solutions = random.Random(seed), schedule.batch_size - schedule.num_exercises
    num_sums = schedule.num_exercises // 3
    exercises = zip(comparisons(seed, schedule.num_exercises - num_sums), sums(seed, num_sums), strict=False)
    for batch, (compared, added) in zip(_drawn(rng, num_solutions), exercises, strict=False):
        reviewed = [(task, trace(rng, task, rng.choice(REVIEWED_HABITS))) for task in batch]
        yield [(judge_prompt(*pair), critique(rng, *pair, reviewer)) for pair in reviewed] + compared + added


def hasty_examples(seed: int, schedule: Schedule) -> Iterator[list[Example]]:
    """The same, by the over-critic."""
    return genrm_examples(seed, schedule, HASTY)


def critic_data(policy: LocalModel, seed: int, num: int, part: Split) -> list[dict[str, Any]]:
    """Correct solutions of the policy, half of them flawed, labelled by the oracle; rows as `read_labelled` reads."""
    sound: list[dict[str, Any]] = []
    flawed: list[dict[str, Any]] = []
    stream = tasks(seed, 100 * num, split=part)
    while min(len(sound), len(flawed)) < num // 2:
        batch = [task for task, _ in zip(stream, range(512), strict=False)]
        answers = policy.generate([[{"role": "user", "content": task.text}] for task in batch])
        for task, answer in zip(batch, answers, strict=True):
            steps = [step.strip() for step in split_steps(answer.text)]
            shown = "\n".join(steps)  # what a judge is shown
            if not is_answer_correct(task, shown):
                continue
            found = examine(task, shown)
            problem = task.problem(f"miniature-critic-{part}")
            label = -1 if found.error_step is None else found.error_step
            row: dict[str, Any] = {"id": problem.id, "problem": problem.text, "reference": problem.reference}
            row |= {"steps": steps, "label": label, "flaw": found.flaw}
            (sound if label < 0 else flawed).append(row)
    rows = sound[: num // 2] + flawed[: num // 2]
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
IMITATION = Schedule(steps=150, batch_size=64, learning_rate=1e-3)
"""Stages: skills first, then habits. The policy goes through the first four, the GenRM leaves after "solutions"."""


def build(
    folder: Path, seed: int = 0, log: Log = lambda *_: None, schedules: Mapping[str, Schedule] = SCHEDULES
) -> None:
    """Train both base models from nothing and write them, with the critic data, below `folder`.

    Each finished stage is kept in `folder/stages-SEED` until the whole is done: interrupted, it goes on behind it.
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

    sampler = LocalModel(model, tokenizer(), max_tokens=64, temperature=1.0, batch_size=512)
    parts: tuple[tuple[Split, int], ...] = (("train", 4096), ("test", 1024))
    for part, num in parts:
        torch.manual_seed(seed)
        write_jsonl(folder / f"critic-{part}.jsonl", critic_data(sampler, seed + 10, num, part))
    shutil.rmtree(stages)


def imitate(writer: str, folder: Path, seed: int, log: Log = lambda *_: None, schedule: Schedule = IMITATION) -> None:
    """Write to `folder`, unless it is there, the base policy after it has learned from solutions of one of WRITERS."""
    if folder.is_dir():
        return
    model = AutoModelForCausalLM.from_pretrained(BASE_FOLDER / "policy", use_safetensors=True, trust_remote_code=False)
    examples = solution_examples(seed, schedule, WRITERS[writer])
    fit(model, examples, schedule, lambda step, loss: log(writer, step, loss))
    with atomic_path(folder) as draft:
        save(model, draft)
