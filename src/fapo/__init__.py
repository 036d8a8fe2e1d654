"""Flawed-aware policy optimization: language models that reason correctly, not just to the right answer."""

__version__ = "0.1.0"
