"""Make models of the miniature: a Llama of about a million parameters with one token for each small number."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fapo.data.miniature.world import MAX_VALUE

_SPECIAL = ["<pad>", "<unk>", "<|user|>", "<|assistant|>", "<|end|>"]
_WORDS = [
    "start ",
    ", add ",
    ", minus ",
    ", times ",
    "; mod ",
    "; ",
    ":A ",
    ":B ",
    ":C ",
    ":D",
    "\\boxed{",
    "\\boxed {",
    "answer ",
    " ok",
    " no",
]
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with a token for each number up to 199, word of the miniature and ASCII character."""
    pieces = _SPECIAL + _WORDS + [chr(c) for c in (10, *range(32, 127))] + [str(n) for n in range(10, MAX_VALUE + 1)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    words = "|".join(w.replace("\\", r"\\").replace("{", r"\{") for w in sorted(_WORDS, key=len, reverse=True))
    pattern = rf"{words}|(?<!\d)(?:1\d\d|[1-9]\d)(?!\d)|[\s\S]"
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def new_model(seed: int, hidden_size: int = 128, num_layers: int = 4, num_heads: int = 4) -> LlamaForCausalLM:
    """Return an untrained model in which numbers that share a digit have similar embeddings, as a help with sums."""
    torch.manual_seed(seed)
    tok = tokenizer()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tok),
            hidden_size=hidden_size,
            intermediate_size=3 * hidden_size,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            max_position_embeddings=512,
            rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
            tie_word_embeddings=True,
            pad_token_id=tok.pad_token_id,
            bos_token_id=None,
            eos_token_id=tok.eos_token_id,
        )
    )
    numbers = torch.tensor(tok.convert_tokens_to_ids([str(n) for n in range(MAX_VALUE + 1)]))
    embeddings = model.get_input_embeddings().weight.data
    tens, ones = (embeddings.std() * torch.randn(len(numbers) // 10, hidden_size) for _ in range(2))
    embeddings[numbers] *= 0.2
    embeddings[numbers] += tens.repeat_interleave(10, 0) + ones[:10].repeat(len(tens), 1)
    return model


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write the model and its tokenizer into a folder that transformers, TRL and vLLM can load."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
