"""Problems and solutions: load them, split solutions into steps, extract final answers, escape untrusted text."""

from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.load import load_labelled, load_problems
from fapo.data.steps import split_steps

__all__ = ["load_labelled", "load_problems", "read_jsonl", "split_steps", "write_jsonl"]
