"""Low-rank adapters: [model.lora] as peft's settings, an adapter merged into the weights, and the adapter judge.

The adapter judge is a second adapter on the frozen weights of the policy. peft keeps both and computes with the active
one; TRL does the same with the reference adapter of a policy that starts from an adapter.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D
from transformers.utils import BITSANDBYTES_MIN_VERSION, is_bitsandbytes_available

from fapo.config.sampling import Sampling, settings_of
from fapo.config.schema import BASE, POLICY, AdapterJudge, Config, ModelConfig
from fapo.errors import ConfigError, EngineError
from fapo.inference.adapters import import_peft
from fapo.inference.models import ModelSpec, loading, model_folder
from fapo.inference.pretrained import base_of, commit_setting, load_tokenizer
from fapo.inference.transformers_model import LocalModel
from fapo.judge.verdicts import BOX
from fapo.types import Completion, Message

ALL_LINEAR = "all-linear"
"""peft's name for all linear layers but the output layer."""
TRAINED, JUDGE = "default", "judge"
"""peft's names of the two adapters: trained by the trainer, and used by the judge."""


def peft_config(config: Config, model: Any) -> Any:
    """Return the adapter of a run as peft's record of settings; None without [model.lora].

    Args:
        config: Config of the run.
        model: Model that is trained.

    Returns:
        A `peft.LoraConfig`, or None.

    Raises:
        ConfigError: If peft is not installed, or `model.lora.target_modules` names a layer that cannot be adapted.
    """
    lora = config.model.lora
    if lora is None:
        return None
    peft = import_peft("model.lora")
    _check_targets(model, lora.target_modules)
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=ALL_LINEAR if lora.target_modules == (ALL_LINEAR,) else list(lora.target_modules),
    )


def quantization(config: Config) -> BitsAndBytesConfig | None:
    """Return `model.lora.quantization` as the settings of transformers; None if it is unset.

    The numbers are in NF4 and their scales in 8 bits, as in QLoRA (Dettmers et al. 2023, section 3). Products are
    computed in bfloat16, or with model.dtype "float32" in float32.

    Args:
        config: Config of the run.

    Returns:
        Settings for `from_pretrained`, or None.

    Raises:
        ConfigError: If bitsandbytes is not installed.
    """
    if config.model.lora is None or config.model.lora.quantization is None:
        return None
    if not is_bitsandbytes_available():
        raise ConfigError(
            f"model.lora.quantization needs bitsandbytes: pip install 'bitsandbytes>={BITSANDBYTES_MIN_VERSION}'"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32 if config.model.dtype == "float32" else torch.bfloat16,
    )


def _check_targets(model: Any, targets: tuple[str, ...]) -> None:
    """Raise ConfigError for a name that is not the last part of the name of a linear layer, or is the output layer."""
    if targets == (ALL_LINEAR,):
        return
    output = model.get_output_embeddings()
    linear = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not output
    }
    if unknown := [target for target in targets if target.rpartition(".")[2] not in linear]:
        raise ConfigError(
            f"model.lora.target_modules: the model has no layer {', '.join(unknown)} that can be adapted; choose from "
            f"{', '.join(sorted(linear))}, or leave the setting out for all of them"
        )


def save_merged(trainer: Any, folder: Path) -> None:
    """Add the trained adapter to the weights of the base model, and save them as a model like any other.

    The model of the trainer is of no use afterwards.

    Args:
        trainer: A transformers Trainer of a `peft.PeftModel`.
        folder: Folder of the model.
    """
    model = trainer.accelerator.unwrap_model(trainer.model).merge_and_unload(adapter_names=[TRAINED])
    model.save_pretrained(folder)
    trainer.processing_class.save_pretrained(folder)


class AdapterModel:
    """Chat model of an adapter judge: the model in training, with the judge's adapter or none in the policy's place.

    With "policy" as its name the policy's adapter stays in its place: the policy judges itself.

    It answers after `attach`. Judging changes no gradients, no random numbers and no mode of a module.
    """

    concurrency: ClassVar[int] = 1
    """Number of calls under way at once, for callers that ask in batches."""

    def __init__(self, config: AdapterJudge, trained: ModelConfig) -> None:
        """Find the adapter.

        Args:
            config: The [judge] table.
            trained: The [model] table of the run.

        Raises:
            ConfigError: If `judge.model` is not an adapter of this model, or peft is not installed.
        """
        import_peft('judge.kind "adapter"')
        self.config, self.adapter = config, config.adapter
        base = model_folder(trained.path)
        with loading("judge.model", config.model):
            if self.adapter is not None:
                named = base_of(self.adapter)
                if named is None:
                    raise ConfigError(
                        f'{self.adapter} is no adapter; give an adapter of model.path, "{BASE}" or "{POLICY}"'
                    )
                if _place(named) != _place(base):
                    raise ConfigError(
                        f"{self.adapter} is an adapter of {named}, but model.path is {base}; use an adapter of this "
                        'model, or kind "local"'
                    )
            tokenizer = load_tokenizer(self.adapter or base, padding_side="left")
        self.settings = {**settings_of(Sampling, config), "seed": 0, "base": ModelSpec(base).record_name}
        self.settings |= commit_setting(self.adapter or base) | ({"logprobs": True} if config.logprobs else {})
        if trained.lora and trained.lora.quantization:
            self.settings["quantization"] = trained.lora.quantization
        """All that a completion depends on, besides the conversations and the name of the adapter; for a cache."""
        self._tokenizer = tokenizer
        self._model: LocalModel | None = None
        self._judging = threading.Lock()  # canaries and rollouts are judged in two threads

    def attach(self, trainer: Any) -> None:
        """Load the adapter beside that of the policy; from now on the judge answers.

        Checkpoints of the trainer hold the policy's adapter only.

        Args:
            trainer: A transformers Trainer of a `peft.PeftModel`.

        Raises:
            ConfigError: If the adapter cannot be loaded beside that of the policy.
            EngineError: If the weights are divided over processes.
        """
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise EngineError('judge.kind "adapter" needs whole weights in each process; leave out FSDP and DeepSpeed')
        model = trainer.accelerator.unwrap_model(trainer.model)
        if self.adapter is not None:
            with _left_as_it_is(model), loading("judge.model", self.adapter):
                try:
                    model.load_adapter(self.adapter, JUDGE)
                except RuntimeError as error:  # weights of other sizes
                    raise ValueError(str(error)) from None
        model.save_pretrained = functools.partial(model.save_pretrained, selected_adapters=[TRAINED])
        self._model = LocalModel(
            model,
            self._tokenizer,
            self.config,
            seed=self.settings["seed"],
            logprobs_after=BOX if self.config.logprobs else "",
        )

    async def __call__(self, conversations: Sequence[list[Message]]) -> list[Completion]:
        """Return one completion for each conversation, in order; the trainer must wait meanwhile."""
        return await asyncio.to_thread(self.generate, conversations)

    def generate(self, conversations: Sequence[list[Message]]) -> list[Completion]:
        """Return one completion for each conversation, in order."""
        assert self._model, "the trainer comes first"
        model = self._model.model
        with self._judging, _left_as_it_is(model), self._adapter_of_the_judge(model):
            model.eval()
            completions: list[Completion] = self._model.generate(conversations)
        return completions

    @contextlib.contextmanager
    def _adapter_of_the_judge(self, model: Any) -> Iterator[None]:
        """Within the block, the model computes with the adapter that the config names; then with the policy's."""
        if self.config.model == POLICY:
            yield
            return
        if self.adapter is None:
            with model.disable_adapter():
                yield
            return
        model.set_adapter(JUDGE, inference_mode=True)
        try:
            yield
        finally:
            model.set_adapter(TRAINED)


@contextlib.contextmanager
def _left_as_it_is(model: Any) -> Iterator[None]:
    """After the block, modes of modules, trained weights and random numbers are as before.

    peft sets both when it loads an adapter or makes it the active one, and it draws the weights of a new adapter.
    """
    modes = [(module, module.training) for module in model.modules()]
    trained = [(weights, weights.requires_grad) for weights in model.parameters()]
    try:
        with torch.random.fork_rng():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for weights, requires_grad in trained:
            weights.requires_grad = requires_grad


def _place(path: str) -> str:
    """Return a folder as its absolute path, and a Hub id as it is."""
    return str(Path(path).resolve()) if Path(path).is_dir() else path
