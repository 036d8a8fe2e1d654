"""Settings of a run: TOML tables and command-line overrides in, a checked `Config` out."""

from fapo.config.load import load
from fapo.config.schema import Config, JudgeConfig, RewardConfig

__all__ = ["Config", "JudgeConfig", "RewardConfig", "load"]
