"""Preview of a run before an engine is loaded: its steps, data and models, and which of them cannot be reached."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

from fapo.config.backend import verl_devices
from fapo.config.reader import Places
from fapo.config.schema import (
    POLICY,
    AdapterJudge,
    CascadeJudge,
    Config,
    JudgeConfig,
    JudgeRequests,
    ModelJudge,
    OracleJudge,
    PRMJudge,
)
from fapo.data.hub import use_cache_without_network, why_not_on_hub
from fapo.data.load import load_labelled, load_problems
from fapo.data.problems import load_prompt
from fapo.data.sources import is_hub_id
from fapo.errors import ConfigError, DataError, EngineError, FapoError
from fapo.inference.models import model_folder
from fapo.inference.served_models import served_models
from fapo.rewards.from_config import check_scorer
from fapo.training.datasets import too_few_rows
from fapo.training.run_folder import with_cache

WIDTH = 80
"""Width of the page in characters."""


def check_inputs(config: Config, place: Places) -> None:
    """Read the prompts, and the first row of each data set that is not on the Hugging Face Hub.

    Without network, all that is on the Hub is looked for in its cache from now on.

    Args:
        config: Config of a run.
        place: Function that returns the place of a key.

    Raises:
        ConfigError: A prompt or a template cannot be used.
        DataError: A data set cannot be read. The message has place and key.
    """
    if any(is_hub_id(source) for _, source in _sources(config)) or any(map(_on_hub, _local_models(config).values())):
        use_cache_without_network()
    load_prompt(config.data.prompt)
    check_scorer(config)
    with_cache(config)  # refuses judges that would share answers
    for key, source in _sources(config):
        if is_hub_id(source):
            continue
        try:
            _num_rows(config, key, source, limit=1)
        except (ConfigError, DataError) as error:
            raise type(error)(f"{place(key)}: {key}: {error}") from None


def preview(config: Config, place: Places, engine: str) -> str:
    """Return a page about what a run will do, with a list of what cannot be reached from here.

    Data files are read, servers and the Hub are asked; no model is loaded.

    Args:
        config: Config of the run.
        place: Function that returns the place of a key.
        engine: trl or verl.

    Returns:
        Text of lines of at most `WIDTH` characters, unless a word is longer.

    Raises:
        ConfigError: A prompt or a template cannot be used, or the numbers of nodes and GPUs for verl are no numbers.
    """
    load_prompt(config.data.prompt)
    check_scorer(config)
    with_cache(config)  # refuses judges that would share answers
    missing: list[str] = []

    def found(key: str, error: str) -> None:
        missing.append(f"{place(key)}: {key}: {error}")

    rows: dict[str, int] = {}
    for key, source in _sources(config):
        try:
            if is_hub_id(source):
                if why := why_not_on_hub("datasets", source.partition(":")[0]):
                    found(key, f"{source}: {why}")
            else:
                rows[key] = _num_rows(config, key, source)
        except FapoError as error:
            found(key, str(error))
    if "data.train" in rows and (why := too_few_rows(config, _num_used(config, rows))):
        found("data.train", why)
    for key, why in _missing_models(config):
        found(key, why)
    folder = Path(config.output) / config.name
    if (folder / "config.json").exists():
        found("name", f"{folder} holds a run: continue it with --resume, or choose another name")
    lines = [_wrapped(f"{name:<12}", text) for name, text in _page(config, rows, engine)]
    if missing:
        lines += ["", "This does not work here; the command may be meant for another machine:"]
        lines += [_wrapped("- ", line) for line in missing]
    return "\n".join(lines)


def _wrapped(start: str, text: str) -> str:
    """Return a paragraph of the page, with all lines but the first as far to the right as the text."""
    indent = " " * len(start)
    return textwrap.TextWrapper(
        WIDTH, initial_indent=start, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ).fill(text)


def _sources(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the keys of the data sets of a run with their sources."""
    yield "data.train", config.data.train
    for name, source in config.data.validation.items():
        yield f"data.validation.{name}", source
    if config.judge and config.judge.canaries:
        yield "judge.canaries", config.judge.canaries


def _num_used(config: Config, rows: dict[str, int]) -> int:
    """Return the number of training rows that are used; 0 if it is not known here."""
    return min(rows.get("data.train", 0), config.data.limit or sys.maxsize)


def _num_rows(config: Config, key: str, source: str, limit: int | None = None) -> int:
    """Return the number of rows of a data set; raise DataError or ConfigError if it cannot be read."""
    if config.task == "genrm" or key == "judge.canaries":
        return len(load_labelled(source, limit=limit))
    return len(load_problems(source, limit=limit))


def _local_models(config: Config) -> dict[str, str]:
    """Return the models that are loaded into processes of the run, by key."""
    models = {"model.path": config.model.path}
    for key, judge in config.judges:
        has_none = isinstance(judge, AdapterJudge) and judge.adapter is None
        if isinstance(judge, ModelJudge) and judge.loads_model and not has_none:
            models[f"{key}.model"] = judge.model
    return models


def _on_hub(path: str) -> bool:
    """Return whether a model is no folder, and its name may be an id of the Hub."""
    return not Path(path).is_dir() and re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", path) is not None


def _missing_models(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the keys of the models that cannot be reached, with the reasons."""
    for key, path in _local_models(config).items():
        try:
            if Path(model_folder(path)).is_dir():
                continue
        except ConfigError as error:
            yield key, str(error)
            continue
        if not _on_hub(path):
            yield key, f"{path}: no such folder"
        elif why := why_not_on_hub("models", path):
            yield key, f"{path}: no such folder, and {why}"
    for key, judge in config.judges:
        if not isinstance(judge, JudgeRequests):
            continue
        for url in judge.urls:
            try:
                names = served_models(url)
            except (EngineError, ConfigError) as error:
                yield f"{key}.urls", str(error)
            else:
                if judge.model not in names:
                    yield f"{key}.model", f"{url} has {', '.join(names) or 'no model'}, not {judge.model}"


def _page(config: Config, rows: dict[str, int], engine: str) -> Iterator[tuple[str, str]]:
    """Yield the names and texts of the lines of the page."""
    rollout, optim, validation = config.rollout, config.optim, config.validation
    method = {"rl": "reinforcement learning", "sft": "imitation"}[config.method]
    yield "run", f"{config.name}: {method} of a {config.task} with {engine}, into {Path(config.output) / config.name}"
    lora = config.model.lora
    adapter = f", an adapter of rank {lora.rank}" if lora else ""
    weights = f", weights in {lora.quantization}" if lora and lora.quantization else ""
    yield "model", f"{config.model.path}, {config.model.dtype}{adapter}{weights}"
    unknown = "number of rows not known here"
    for key, source in _sources(config):
        limit = {"data.train": config.data.limit, "judge.canaries": None}.get(key, validation.limit)
        used = f", the first {limit:,} are used" if limit and limit < rows.get(key, limit + 1) else ""
        known = f"{rows[key]:,} rows" if key in rows else unknown
        yield "data" if key == "data.train" else "", f"{key.removeprefix('data.')}: {source}, {known}{used}"
    if config.task == "policy":
        yield "prompt", config.data.prompt or "the problem as it is"
    else:
        assert config.genrm
        yield "prompt", config.genrm.template
    num = rollout.num_prompts * rollout.group_size
    if config.method == "rl":
        yield (
            "rollouts",
            f"{rollout.num_prompts:,} prompts x {rollout.group_size} = {num:,} a step, "
            f"of at most {rollout.max_tokens:,} tokens, at temperature {rollout.temperature:g}",
        )
    else:
        yield "batch", f"{num:,} critiques a step"
    updates = f"{optim.updates_per_batch} updates each" if optim.updates_per_batch > 1 else "one update each"
    passes = ""
    if size := _num_used(config, rows):
        per_step = rollout.num_prompts if config.method == "rl" else num
        passes = f", {optim.steps * per_step / size:.2g} passes over the data"
    yield "steps", f"{optim.steps:,}, {updates}, learning rate {optim.learning_rate:g}{passes}"
    if config.method == "rl":
        yield (
            "tokens",
            f"at most {num * rollout.max_tokens:,} a step, {optim.steps * num * rollout.max_tokens:,} in all",
        )
    if config.reward:
        yield "reward", _settings(config.reward)
    if config.judge:
        yield "judge", _judge(replace(config.judge, all=config.judges_all), num)
        if audit := config.judge.audit:
            purpose = ", to correct the reward" if audit.correct else ""
            if audit.switches:
                purpose = f", and below a J of {audit.min_j:g} all are judged by this judge"
            by = _judge(audit.second, num) if audit.second else "a person, who labels them on the page of fapo report"
            yield "", f"a random {audit.rate:.0%} of them are audited{purpose}: {by}"
    yield (
        "validation",
        f"before the first step and every {validation.every} steps, samples of each problem: {validation.num_samples}"
        if config.data.validation
        else "none",
    )
    yield "checkpoints", f"every {validation.save_every} steps"
    yield "devices", _devices(config, engine)


def _judge(judge: JudgeConfig, num: int) -> str:
    """Return what the judge is, and how often it is asked."""
    if isinstance(judge, OracleJudge):
        return "the miniature's oracle"
    if isinstance(judge, CascadeJudge):
        low, high = judge.thresholds
        cheap, strong = (_judge(replace(part, all=judge.all), num) for _, part in judge.parts)
        return f"{cheap}; for a score of a flaw between {low:g} and {high:g}: {strong}"
    urls = judge.urls if isinstance(judge, JudgeRequests) else ()
    place = f"at {', '.join(urls)}" if urls else "in this process"
    if isinstance(judge, AdapterJudge):
        place = "itself, as it is at each step" if judge.model == POLICY else "on the weights of the policy"
    asked = "all rollouts" if judge.all else "the correct rollouts"
    if isinstance(judge, PRMJudge):
        return f"{judge.model} {place}, scores of steps, threshold {judge.threshold:g}; {asked}, at most {num:,} a step"
    votes = f"{judge.votes} critiques each, " if judge.votes > 1 else ""
    return (
        f"{judge.model} {place}, prompt {judge.template}; {asked}, at most {num:,} a step, {votes}of at most "
        f"{judge.max_tokens:,} tokens at temperature {judge.temperature:g}"
    )


def _settings(table: object) -> str:
    """Return the settings of a reward: its kind, and each other field that is set."""
    values = {f.name: getattr(table, f.name) for f in fields(table)}  # type: ignore[arg-type]  # a dataclass
    kind = values.pop("kind")
    return f"{kind}; " + ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def _devices(config: Config, engine: str) -> str:
    """Return the devices that the engine will use, as far as the config and this machine say."""
    here = len(list(Path("/dev").glob("nvidia[0-9]*")))
    this_machine = f"this machine has {here} NVIDIA GPU{'s' * (here != 1)}"
    if engine == "verl":
        nodes, gpus = verl_devices(config)
        return f"{nodes} nodes x {gpus} GPUs of the Ray cluster; {this_machine}"
    processes = int(os.environ.get("WORLD_SIZE", 1))
    return f"{processes} process{'es' * (processes != 1)} (accelerate launch starts several); {this_machine}"
