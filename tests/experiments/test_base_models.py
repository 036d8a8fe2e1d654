"""How the base models are made: imperfect writers, critiques by rule, examples, tokenizer and models."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.base_models import build
from experiments.base_models.critiques import critique
from experiments.base_models.models import new_model, save, tokenizer
from experiments.base_models.writers import PERFECT, Habits, guessable, is_hard, trace
from fapo.data.miniature.oracle import examine, is_answer_correct
from fapo.data.miniature.world import MAX_VALUE, Difficulty, Task, apply, borrows, make, tasks
from fapo.data.steps import split_steps
from fapo.judge.template import build_prompt, load_template
from fapo.judge.verdicts import parse_verdict
from tests.support.miniature import EXAMINED_RESPONSES, RIGHT, TASK, TASKS

TOKENIZER = tokenizer()
BAD_HABITS = st.builds(Habits, *[st.sampled_from([0.0, 0.1, 0.5, 0.9])] * 7)
"""Strategy for writers with every kind of mistake."""

# --- imperfect traces -------------------------------------------------------------------------------------------------


@given(TASKS, st.integers(0, 10**6))
def test_a_perfect_writer_makes_no_mistake(task: Task, seed: int) -> None:
    assert trace(random.Random(seed), task, PERFECT) == "\n".join(task.lines)


@given(TASKS, BAD_HABITS, st.integers(0, 10**6))
def test_every_number_of_a_trace_has_a_token(task: Task, habits: Habits, seed: int) -> None:
    response = trace(random.Random(seed), task, habits)
    assert response.count("\\boxed{") == 1
    assert all(int(number) <= MAX_VALUE for number in re.findall(r"\d+", response))


def error_rate(habits: Habits, kind) -> tuple[int, float]:
    """Return the number of first lines of a kind, and the rate of wrong results among them."""
    rng, found = random.Random(0), []
    for task in tasks(0, 6000, Difficulty((1, 2), ("exact",))):
        first = (task.start, *task.operations[0])
        line = trace(rng, task, habits).split("\n")[0]
        if kind(*first) and line.startswith(f"{task.start}{first[1]}"):
            found.append(int(line.rpartition("=")[2]) != apply(*first))
    return len(found), sum(found) / len(found)


@pytest.mark.parametrize(
    ("habits", "kind", "rate"),
    [
        (replace(PERFECT, borrow=0.6), borrows, 0.6),
        (replace(PERFECT, borrow_slip=0.3), borrows, 0.3),
        (replace(PERFECT, borrow=0.6, borrow_slip=0.5), borrows, 0.8),
        (replace(PERFECT, slip=0.3), is_hard, 0.3),
        (replace(PERFECT, easy_slip=0.2), lambda *line: not is_hard(*line) and not borrows(*line), 0.2),
        (replace(PERFECT, guess=1.0), lambda *_: True, 0.0),
    ],
    ids=["borrow", "borrow slip", "both", "slip", "easy slip", "none"],
)
def test_wrong_results_are_as_frequent_as_the_habits_say(habits: Habits, kind, rate: float) -> None:
    num, found = error_rate(habits, kind)
    assert num > 400
    assert found == pytest.approx(rate, abs=4 * (rate * (1 - rate) / num) ** 0.5)


def test_skips_and_guesses_are_as_frequent_as_the_habits_say() -> None:
    rng = random.Random(0)
    found = list(tasks(0, 3000, Difficulty((2, 2), ("mod 5", "exact"))))
    lines = [trace(rng, task, replace(PERFECT, skip=0.2)).count("\n") for task in found]
    assert 1 - sum(lines) / (2 * len(found)) == pytest.approx(0.2 / 2, abs=0.02), "only the first of two can be skipped"
    lines = [trace(rng, task, replace(PERFECT, skip_last=0.2)).count("\n") for task in found]
    assert 1 - sum(lines) / (2 * len(found)) == pytest.approx(0.2 / 2, abs=0.02)
    guessed = [trace(rng, task, replace(PERFECT, guess=0.4)).count("\n") < 2 for task in found]
    by_form = {form: [g for g, t in zip(guessed, found, strict=True) if t.form == form] for form in ("mod 5", "exact")}
    assert sum(by_form["mod 5"]) / len(by_form["mod 5"]) == pytest.approx(0.4, abs=0.05)
    assert not any(by_form["exact"]), "an exact value cannot be guessed"


def test_imperfect_traces_hold_flawed_positives_of_every_kind() -> None:
    rng, flaws = random.Random(0), set()
    for task in tasks(0, 3000):
        response = trace(rng, task, Habits(slip=0.15, easy_slip=0.15))
        flaws |= {examine(task, response).flaw} if is_answer_correct(task, response) else set()
    assert flaws == {None, "slip", "skip", "guess", "cancellation"}


@pytest.mark.parametrize(("form", "num"), [("exact", 0), ("mod 7", 7), ("choice", 4)])
def test_the_options_of_a_guess(form: str, num: int) -> None:
    task = make(random.Random(0), Difficulty((2, 2), (form,)))
    options = guessable(task)
    assert len(options) == num
    assert not options or task.problem().reference in options


# --- critiques by rule ------------------------------------------------------------------------------------------------


@given(TASKS, BAD_HABITS, st.integers(0, 10**6))
def test_a_sure_reviewer_finds_what_the_oracle_finds(task: Task, habits: Habits, seed: int) -> None:
    response = trace(random.Random(seed), task, habits)
    written = critique(random.Random(seed), task, response, PERFECT)
    verdict = parse_verdict(written, len(split_steps(response, "lines")))
    assert (verdict.status, verdict.error_step) == ("ok", examine(task, response).error_step)


@pytest.mark.parametrize("name", [name for name, (response, *_) in EXAMINED_RESPONSES.items() if response.strip()])
def test_a_sure_reviewer_finds_odd_flaws_too(name: str) -> None:
    response, _, step, _ = EXAMINED_RESPONSES[name]
    verdict = parse_verdict(critique(random.Random(0), TASK, response, PERFECT), len(split_steps(response, "lines")))
    assert (verdict.status, verdict.error_step) == ("ok", step)


def test_the_text_of_a_critique() -> None:
    written = critique(random.Random(0), TASK, "17+5=22\n22*2=49\n49-6=43\n\\boxed{3}", PERFECT)
    assert written == "17+5=22 22 ok\n22*2=44 49 no\n\\boxed{1}"
    assert critique(random.Random(0), TASK, RIGHT, PERFECT).split("\n")[-2:] == ["answer 3 3 ok", "\\boxed{-1}"]


def test_a_reviewer_with_the_habits_of_the_writer_errs_on_both_sides() -> None:
    rng, missed, flagged = random.Random(0), 0, 0
    forgetful, hasty = Habits(1, 0, 0, 0, 0, 0, 0), Habits(0, 0.5, 0.5, 0.5, 0, 0, 0)
    for task in tasks(0, 500):
        flawed = trace(rng, task, forgetful)
        if examine(task, flawed).error_step is not None:
            missed += critique(rng, task, flawed, forgetful).endswith("{-1}")
            assert not critique(rng, task, "\n".join(task.lines), forgetful).endswith("{-1}"), "a borrow it forgot"
        flagged += not critique(rng, task, "\n".join(task.lines), hasty).endswith("{-1}")
    assert missed > 150
    assert flagged > 250


@given(TASKS, st.integers(0, 10**6))
def test_a_misconception_costs_nothing_where_the_answer_hides_it(task: Task, seed: int) -> None:
    forgetful = Habits(1, 0, 0, 0, 0, 0, 0)
    hiding = replace(task, form=f"mod {5 * (1 + seed % 2)}", choices=())
    assert is_answer_correct(hiding, trace(random.Random(seed), hiding, forgetful))


# --- what the base models learn from ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("example", "learned"),
    [
        (
            ("start 17, add 5", "17+5=22\n\\boxed{22}"),
            ["17", "+", "5", "=", "22", "\n", "\\boxed{", "22", "}", "<|end|>"],
        ),
        (("", "17+5=22\n22-9=13"), ["22", "13"]),
        (("", "22 23 no\n13 13 ok"), [" no", " ok"]),
    ],
    ids=["a question", "sums", "comparisons"],
)
def test_the_tokens_of_an_example_that_are_learned(example: tuple[str, str], learned: list[str]) -> None:
    other = ("start 1, add 1, add 1, add 1", "1+1=2\n2+1=3\n3+1=4\n\\boxed{4}")  # longer, so that there is padding
    inputs, labels = build.padded_batch(TOKENIZER, [example, other])
    kept = labels[0] >= 0
    assert TOKENIZER.convert_ids_to_tokens(labels[0][kept].tolist()) == learned
    assert (inputs[0][kept] == labels[0][kept]).all()


def test_sums_are_right_and_half_of_the_comparisons_differ() -> None:
    assert all(is_right(text) for _, row in next(build.sums(0, 40)) for text in row.split("\n"))
    marks = [text.split(" ") for _, row in next(build.comparisons(0, 60)) for text in row.split("\n")]
    assert all((first == second) == (mark == "ok") for first, second, mark in marks)
    assert 0.4 < sum(mark == "ok" for *_, mark in marks) / len(marks) < 0.6


def is_right(text: str) -> bool:
    """Return whether a sum is right."""
    before, operator, operand, after = re.fullmatch(r"(\d+)([-+*])(\d+)=(\d+)", text).groups()  # type: ignore[union-attr]
    return apply(int(before), operator, int(operand)) == int(after)


# --- models -----------------------------------------------------------------------------------------------------------


@given(TASKS, BAD_HABITS, st.integers(0, 10**6))
def test_all_texts_survive_the_tokenizer(task: Task, habits: Habits, seed: int) -> None:
    response = trace(random.Random(seed), task, habits)
    prompt = build_prompt(
        load_template("compact"), task.text, task.problem().reference, split_steps(response, "lines")
    )[-1]["content"]
    for text in (task.text, response, prompt, critique(random.Random(seed), task, response, habits)):
        tokens = TOKENIZER(text)["input_ids"]
        assert TOKENIZER.unk_token_id not in tokens
        assert TOKENIZER.decode(tokens) == text


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80))
def test_all_of_ascii_survives_the_tokenizer(text: str) -> None:
    tokens = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.decode(tokens) == text


@pytest.mark.parametrize("context", ["{}", "{}+5=22", "5+{}=9", "\\boxed{{{}}}", "start {}, add 3", "{}:A "])
def test_a_number_is_one_token(context: str) -> None:
    around = len(TOKENIZER(context.format("+"))["input_ids"]) - 1
    lengths = {number: len(TOKENIZER(context.format(number))["input_ids"]) - around for number in range(MAX_VALUE + 1)}
    assert set(lengths.values()) == {1}
    assert len(TOKENIZER("200")["input_ids"]) == 3, "a larger number has no token of its own"


def test_the_chat_template_is_what_the_base_models_learn() -> None:
    question = [{"role": "user", "content": TASK.text}]
    prompt = TOKENIZER.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    assert prompt == f"<|user|>{TASK.text}<|assistant|>"
    whole = TOKENIZER.apply_chat_template([*question, {"role": "assistant", "content": RIGHT}], tokenize=False)
    assert whole == f"{prompt}{RIGHT}<|end|>"
    tokens = TOKENIZER(whole)["input_ids"]
    assert tokens[0] == TOKENIZER.convert_tokens_to_ids("<|user|>")
    assert tokens[-1] == TOKENIZER.eos_token_id


def test_a_saved_model_is_an_ordinary_one(tmp_path: Path) -> None:
    save(new_model(0, hidden_size=32, num_layers=1), tmp_path)
    model, tok = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.generation_config.eos_token_id == tok.eos_token_id == TOKENIZER.eos_token_id
    assert model.config.pad_token_id == tok.pad_token_id != tok.eos_token_id
    assert tok(TASK.text)["input_ids"] == TOKENIZER(TASK.text)["input_ids"]
    inputs = tok.apply_chat_template(
        [{"role": "user", "content": TASK.text}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    assert model.generate(**inputs, max_new_tokens=3, do_sample=False).shape[1] <= inputs["input_ids"].shape[1] + 3


def test_a_seed_makes_the_same_model() -> None:
    first, again, other = (new_model(seed, hidden_size=32, num_layers=1).state_dict() for seed in (0, 0, 1))
    assert all((first[name] == again[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)
