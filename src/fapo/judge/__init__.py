"""Judges: from a rollout to a verdict, which says whether the solution is flawed and in which step."""

from fapo.judge.circuit_breaker import CircuitBreaker
from fapo.judge.from_config import make_judge
from fapo.judge.genrm import GenRM
from fapo.judge.template import Template, build_prompt, load_template
from fapo.judge.verdicts import majority, parse_verdict

__all__ = [
    "CircuitBreaker",
    "GenRM",
    "Template",
    "build_prompt",
    "load_template",
    "majority",
    "make_judge",
    "parse_verdict",
]
