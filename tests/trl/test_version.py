"""The supported versions of TRL, and the private methods that fapo overrides; tests fail when TRL changes them."""

from __future__ import annotations

import inspect
import logging
import re
import tomllib
from importlib import metadata

import pytest
from trl import GRPOTrainer

from fapo.errors import EngineError
from fapo.trl.reward import flawed_aware_reward
from fapo.trl.version import BELOW, OLDEST, is_checked, require_methods, warn_unless_checked
from fapo.types import Rollout, Verdict
from tests.support.paths import ROOT

PARAMETERS = {
    "_generate": ["self", "prompts"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_generate_and_score_completions": ["self", "inputs"],
    "_compute_loss": ["self", "model", "inputs"],
    "_get_per_token_logps_and_entropies": [
        *("self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy"),
        *("compute_aux_loss", "pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes"),
        *("num_tiles", "image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids"),
    ],
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


def install(version: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it look as if this version of TRL were installed."""

    def found(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", found)


def test_another_version_is_reported_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    install("1.17.0", monkeypatch)
    warn_unless_checked.cache_clear()
    with caplog.at_level(logging.WARNING, "fapo"):
        warn_unless_checked()
        warn_unless_checked()
    assert not is_checked()
    assert caplog.messages == [
        "TRL 1.17.0 is installed; fapo's trainer was written for TRL 1.16. If it fails: pip install 'trl==1.16.*'"
    ]


async def nobody(rollouts: list[Rollout]) -> list[Verdict]:
    return [Verdict.from_step(None)] * len(rollouts)


@pytest.mark.parametrize("version", ["1.6.0", "1.9.2", "1.15.0", "1.16.0", "1.17.0.dev0", "1.100.0", "unknown", None])
def test_versions_with_which_the_reward_works(version: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    install(version, monkeypatch)
    assert flawed_aware_reward(nobody).__name__ == "fapo_reward"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("0.29.1", "TRL 0.29.1 is installed, which counts a missing reward as 0; fapo supports TRL >= 1.6 and < 2: "),
        ("1.5.1", "TRL 1.5.1 is installed, which counts a missing reward as 0; fapo supports TRL >= 1.6 and < 2: "),
        ("2.0.0", "TRL 2.0.0 is installed; fapo supports TRL >= 1.6 and < 2: "),
    ],
)
def test_a_version_outside_the_range_is_an_error(version: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(version, monkeypatch)
    with pytest.raises(EngineError, match=re.escape(message + "pip install 'trl>=1.6,<2'")):
        flawed_aware_reward(nobody)


def test_the_range_is_that_of_the_package() -> None:
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["train"]
    assert "trl>=1.6,<2" in requirements
    assert (OLDEST, BELOW) == ((1, 6), (2, 0))


def test_a_trainer_without_the_methods_is_an_error() -> None:
    class Renamed:
        """Trainer of a later TRL, in which only one of the methods has kept its name."""

        def _generate(self, prompts: list[str]) -> None: ...

    with pytest.raises(EngineError, match="whose Renamed has no _calculate_rewards, which fapo train overrides; it"):
        require_methods(Renamed, ("_generate", "_calculate_rewards"), "fapo train")
