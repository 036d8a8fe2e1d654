"""The private methods of TRL that fapo overrides; these tests fail when TRL changes them."""

from __future__ import annotations

import inspect
import logging

import pytest
import trl
from trl import GRPOTrainer

from fapo.trl.version import is_checked, warn_unless_checked

PARAMETERS = {
    "_generate": ["self", "prompts"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_generate_and_score_completions": ["self", "inputs"],
    "_compute_loss": ["self", "model", "inputs"],
    "_prepare_inputs": ["self", "generation_batch"],
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_methods_are_those_that_were_checked(name: str) -> None:
    assert list(inspect.signature(getattr(GRPOTrainer, name)).parameters) == PARAMETERS[name]


def test_the_installed_version_is_the_one_that_was_checked(caplog: pytest.LogCaptureFixture) -> None:
    warn_unless_checked.cache_clear()
    warn_unless_checked()
    assert is_checked()
    assert caplog.messages == []


def test_another_version_is_reported_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(trl, "__version__", "1.17.0")
    warn_unless_checked.cache_clear()
    with caplog.at_level(logging.WARNING, "fapo"):
        warn_unless_checked()
        warn_unless_checked()
    assert not is_checked()
    assert caplog.messages == [
        "TRL 1.17.0 is installed; fapo's trainer was written for TRL 1.16. If it fails: pip install 'trl==1.16.*'"
    ]
