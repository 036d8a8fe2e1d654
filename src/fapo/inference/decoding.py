"""Decoding loop for `model.generate(custom_generate=decode)` of transformers that leaves out needless rows.

The sampling loop of transformers reads a prompt once for each of its samples, and writes on after the end of a
sequence. `decode` reads equal prompts once, and drops sequences from the batch soon after they end. It draws the same
random numbers, so that it writes the same tokens, up to rounding: a product of matrices with fewer rows may be added up
in another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from typing import Any

import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import DynamicLayer
from transformers.generation.utils import GENERATION_MODES_MAPPING

CHECKED_VERSION = "5.24"
"""Minor version of transformers for which the loop was written; with any other, transformers' own loop runs."""
DROPPED_RATE = 1 / 8
"""Rate of ended sequences in the batch at which they are dropped: selecting rows of the cache has a cost, too."""
_ROW_BY_ROW = (TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper)
_KNOWN = {"attention_mask", "position_ids", "cache", "use_cache", "logits_to_keep"}


@torch.no_grad()
def decode(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    **model_kwargs: Any,
) -> Any:
    """Return what the decoding method of transformers returns: prompts and what the model has written.

    Greedy decoding and sampling of a decoder with a dynamic cache of keys and values run here. All else is decoded by
    transformers, as if this function had not been given. Do not use it where several processes share the weights of a
    model: `generate` does not say here whether they must do the same number of forward passes.

    Args:
        model: Causal language model of transformers.
        input_ids: Prompts with padding on the left, [num_sequences, prompt_length].
        logits_processor: Processors of the logits.
        stopping_criteria: Criteria that end sequences; they see all sequences, also ended ones.
        generation_config: Settings of the decoding.
        **model_kwargs: Further inputs of the model, as prepared by `generate`.

    Returns:
        Token ids, [num_sequences, length]; after its end a sequence has pad tokens.
    """
    if not _covers(model, logits_processor, generation_config, model_kwargs):
        method = getattr(type(model), GENERATION_MODES_MAPPING[generation_config.get_generation_mode()])
        processors = {"logits_processor": logits_processor, "stopping_criteria": stopping_criteria}
        return method(model, input_ids, **processors, generation_config=generation_config, **model_kwargs)
    size, pad = len(input_ids), generation_config._pad_token_tensor
    first, copies = equal_rows(input_ids, model_kwargs["attention_mask"])
    prompts = model.prepare_inputs_for_generation(
        input_ids[first], is_first_iteration=True, **_rows(model_kwargs, first, size)
    )
    outputs = model(**prompts, return_dict=True)
    outputs.cache.batch_select_indices(copies)
    model_kwargs["cache"] = outputs.cache
    logits = outputs.logits[:, -1].float()[copies]
    probabilities = logits.new_ones(size, logits.shape[-1])
    active = torch.arange(size, device=input_ids.device)
    unfinished = torch.ones_like(active)
    with model._optimize_model_for_decode():
        while True:
            scores = logits_processor(input_ids[active], logits)
            if generation_config.do_sample:
                # the rows of ended sequences keep their last probabilities: they take their random numbers, as they do
                # in the loop of transformers
                probabilities[active] = scores.softmax(-1)
                tokens = torch.multinomial(probabilities, 1).squeeze(1)
            else:
                tokens = torch.zeros_like(unfinished).index_copy(0, active, scores.argmax(-1))
            if any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria):
                tokens = tokens * unfinished + pad * (1 - unfinished)
            input_ids = torch.cat([input_ids, tokens[:, None]], dim=-1)
            unfinished &= ~stopping_criteria(input_ids, None)
            remaining = unfinished[active].nonzero().flatten()
            if not len(remaining):
                return input_ids
            model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs)
            if len(active) - len(remaining) >= DROPPED_RATE * len(active):
                model_kwargs = _rows(model_kwargs, remaining, len(active))
                model_kwargs["cache"].batch_select_indices(remaining)
                active = active[remaining]
            inputs = model.prepare_inputs_for_generation(input_ids[active], next_sequence_length=1, **model_kwargs)
            outputs = model(**inputs, return_dict=True)
            logits = outputs.logits[:, -1].float()


def _covers(
    model: Any, processors: LogitsProcessorList, config: GenerationConfig, model_kwargs: Mapping[str, Any]
) -> bool:
    """Return whether `decode` writes what transformers would write."""
    plain = is_version(CHECKED_VERSION) and not model.config.is_encoder_decoder
    plain = plain and config.num_beams == 1 and not config.return_dict_in_generate and not config.prefill_chunk_size
    plain = plain and config.get_generation_mode() in ("greedy_search", "sample") and not is_random(model)
    plain = plain and all(type(processor) in _ROW_BY_ROW for processor in processors)
    inputs = {key: value for key, value in model_kwargs.items() if value is not None}
    positions, cache = inputs.get("position_ids"), inputs.get("cache")
    plain = plain and not set(inputs) - _KNOWN and (positions is None or positions.dim() == 2)
    return bool(plain and type(cache) is DynamicCache and _is_empty(cache))


@lru_cache
def is_version(minor: str) -> bool:
    """Return whether the installed transformers has a minor version, such as "5.24"."""
    return metadata.version("transformers").startswith(f"{minor}.")


def _is_empty(cache: DynamicCache) -> bool:
    """Return whether a cache has only layers of keys and values of all tokens, and holds none yet."""
    layers = [type(layer) for layer in cache.layers] or [cache.layer_class_to_replicate]
    return all(layer is DynamicLayer for layer in layers) and not cache.get_seq_length()


def is_random(model: Any) -> bool:
    """Return whether a forward pass of the model draws random numbers: in training, with dropout or noise."""
    if not model.training:
        return False
    modules = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    settings = model.config.to_dict().items()
    return modules or any(value for key, value in settings if "drop" in key or "noise" in key)


def equal_rows(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Find equal prompts.

    Args:
        input_ids: Prompts, [num_sequences, prompt_length].
        attention_mask: Mask of their tokens, of the same shape; None if there is no padding.

    Returns:
        Index of the first of each set of equal prompts, [num_prompts], and for each sequence the position of its prompt
        among them, [num_sequences].
    """
    rows = input_ids if attention_mask is None else torch.cat([input_ids, attention_mask.to(input_ids.dtype)], dim=1)
    distinct, copies = rows.unique(dim=0, return_inverse=True)
    index = torch.arange(len(rows), device=rows.device)
    first = index.new_full((len(distinct),), len(rows)).scatter_reduce(0, copies, index, "amin")
    return first, copies


def _rows(model_kwargs: Mapping[str, Any], index: torch.Tensor, size: int) -> dict[str, Any]:
    """Return inputs of the model with some of its `size` rows; a cache and inputs of one row for all stay the same."""
    return {
        key: value[index] if isinstance(value, torch.Tensor) and value.dim() and len(value) == size else value
        for key, value in model_kwargs.items()
    }
