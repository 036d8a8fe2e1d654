"""Settings of `fapo serve`."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le
from tyro.conf import Positional

from fapo.config.ranges import Count, Natural, check_ranges
from fapo.errors import ConfigError
from fapo.evaluation.judge_settings import JudgeSettings

if TYPE_CHECKING:
    from fapo.rewards.scorer import PolicyScorer

TOKEN_VARIABLE = "FAPO_SERVER_TOKEN"
"""Environment variable with the token that clients must send as `Authorization: Bearer TOKEN`."""
DEFAULT_PENALTY = 1.0
"""Penalty of the paper for a flawed positive."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings(JudgeSettings):
    """The reward to serve: that of a config, or FAPO's reward with a judge."""

    config: Positional[Path | None] = None
    """TOML file of a policy; its [reward], [judge] and rollout.max_tokens are used. Leave it out to name a --judge."""
    penalty: float | None = None
    """Amount subtracted from the reward of a flawed positive; the default is 1. Not with a config."""
    checker: str | None = None
    """Answer check: math, choice, exact, or package.module:function; the default is math. Not with a config."""
    on_unscored: Literal["error", "correctness_only"] | None = None
    """Answer where there is no verdict: an error (null at /v1/rewards), or the reward for correctness alone; the
    default is the config's rule, or an error."""
    host: str = "127.0.0.1"
    """Address to listen at; any other than this machine's own needs a token in FAPO_SERVER_TOKEN."""
    port: Annotated[int, Ge(0), Le(65535)] = 8750
    """Port to listen at; 0 takes a free one."""
    workers: Count = 1
    """Number of server processes; they share the cache, and --concurrency is divided among them."""
    drain_seconds: Natural = 600
    """Seconds that requests under way have to end after SIGTERM or Ctrl-C."""

    def __post_init__(self) -> None:
        if (self.config is None) == (not self.judge):
            raise ConfigError("give either CONFIG, a TOML file, or --judge (URL, local:PATH, prm:URL, ...)")
        for_judge = [f for f in fields(JudgeSettings) if getattr(self, f.name) != f.default]
        own = [name for name in ("penalty", "checker") if getattr(self, name) is not None]
        if self.config and (names := [f.name for f in for_judge] + own):
            name = names[0].replace("_", "-")
            raise ConfigError(f"--{name} is for --judge; with a config, set it in [judge] or [reward] there")
        check_ranges(self, "fapo serve")
        if self.no_cache:
            raise ConfigError("--no-cache is for commands that have a cache by default; leave out --cache instead")
        if self.workers > 1 and self.port == 0:
            raise ConfigError("--workers above 1 need a fixed --port")
        if not is_loopback(self.host) and not token():
            raise ConfigError(
                f"--host {self.host} can be reached from other machines; set {TOKEN_VARIABLE} to a secret that clients "
                "send as a bearer token, or listen at 127.0.0.1"
            )


def token() -> str:
    """Return the token that clients must send; empty if none is needed."""
    return os.environ.get(TOKEN_VARIABLE, "")


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def served_scorer(settings: ServeSettings) -> PolicyScorer:
    """Return the scorer to serve; equal rollouts of concurrent requests are judged once.

    Its `on_unscored` is "mask" or "correctness_only".

    Args:
        settings: Settings of the service.

    Returns:
        The scorer, with a judge of its own.

    Raises:
        ConfigError: The config, the checker or a setting of the judge cannot be used.
        DataError: The cache or the canaries of the judge cannot be used.
    """
    from fapo.config.reader import read_config
    from fapo.config.schema import FapoReward, GroupReward, JudgedReward, PolicyReward
    from fapo.judge.from_config import judge_of_process, make_judge
    from fapo.rewards.checkers import make_checker
    from fapo.rewards.from_config import make_scorer, wrap_judge
    from fapo.rewards.scorer import PolicyScorer

    if settings.config:
        config = read_config(settings.config)
        if not isinstance(config.reward, PolicyReward):
            raise ConfigError(f'{settings.config}: task "{config.task}" has no reward of solutions; use a policy\'s')
        if isinstance(config.reward, GroupReward):
            raise ConfigError(
                f'{settings.config}: reward.kind "{config.reward.kind}" compares the rollouts of a group, which the '
                "service does not see; use kind fapo"
            )
        if config.audit and config.audit.correct:
            raise ConfigError(
                f"{settings.config}: judge.audit.correct needs an audit, which the service does not make; remove it"
            )
        if config.audit and config.audit.switches:
            raise ConfigError(
                f'{settings.config}: judge.audit.on_low_j "switch" needs an audit, which the service does not make; '
                "remove it"
            )
        reward = config.reward
        in_process = bool(config.judge and config.judge.loads_model)
        made = make_scorer(replace(config, judge=judge_of_process(config.judge, settings.workers)))
        assert isinstance(made, PolicyScorer)
        scorer = made
    else:
        named = settings.judge_config()
        in_process = named.loads_model
        reward = FapoReward(penalty=DEFAULT_PENALTY if settings.penalty is None else settings.penalty)
        check_ranges(reward, "fapo serve")
        judge = make_judge(judge_of_process(named, settings.workers))
        check = make_checker(settings.checker or "math")
        scorer = PolicyScorer(reward, judge, max_failure_rate=named.max_failure_rate, check=check)
    if isinstance(reward, JudgedReward):
        rule = settings.on_unscored or ("correctness_only" if reward.on_unscored == "correctness_only" else "error")
        reward = replace(reward, on_unscored="mask" if rule == "error" else rule)
        scorer = replace(scorer, config=reward)
    elif settings.on_unscored:
        raise ConfigError(f'--on-unscored is for rewards with a judge; reward.kind is "{reward.kind}"')
    if not scorer.judge:
        return scorer
    return wrap_judge(scorer, batch=in_process)
