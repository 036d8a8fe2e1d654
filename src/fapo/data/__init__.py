"""Problems and solutions: load them, split solutions into steps, extract final answers, escape untrusted text."""

from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.load import load_labelled, load_problems

__all__ = ["load_labelled", "load_problems", "read_jsonl", "write_jsonl"]
