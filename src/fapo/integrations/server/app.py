"""The reward service: one scorer behind a route for each trainer."""

from __future__ import annotations

import hmac
import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fapo import __version__
from fapo.errors import DataError, EngineError, FapoError, JudgeDownError, UnscoredError
from fapo.integrations.server.messages import (
    MAX_ROLLOUTS,
    OpenRLHFRequest,
    OpenRLHFResponse,
    RewardRow,
    RolloutRow,
    SlimeRequest,
)
from fapo.integrations.server.metrics import FOLDER_VARIABLE, Metrics, TimedJudge
from fapo.integrations.server.settings import TOKEN_VARIABLE, ServeSettings, is_loopback, served_scorer, token
from fapo.rewards.scorer import PolicyScorer
from fapo.types import Rollout, ScoredRollout

MAX_BODY = 64 * 2**20
"""Maximum size of the body of a request in bytes; a larger one gets status 413."""
MAX_WAITING = 32_768
"""Maximum number of rollouts under way in one server process; a request above it gets status 503."""
RETRY_SECONDS = 5
"""Value of the header Retry-After of status 503."""
SETTINGS_VARIABLE = "FAPO_SERVE_SETTINGS"
"""Environment variable with the settings of the service for its worker processes, as JSON."""
OPEN_PATHS = {"/health"}
"""Paths that need no token."""


def make_app(scorer: PolicyScorer, bearer_token: str = "") -> FastAPI:
    """Return the service as an ASGI application.

    Args:
        scorer: Scorer of the rollouts, as from `served_scorer`.
        bearer_token: Token that clients must send; empty for none. Without one, only requests to a name or address of
            this machine's own are answered.

    Returns:
        The application, with its documentation at /docs.
    """
    metrics = Metrics()
    if scorer.judge:
        scorer = replace(scorer, judge=TimedJudge(scorer.judge, metrics))
    app = FastAPI(title="fapo", version=__version__, description="Flawed-aware rewards.", max_body_size=MAX_BODY)
    app.add_middleware(Guard, metrics=metrics, bearer_token=bearer_token)
    waiting = 0

    async def score(rollouts: Sequence[Rollout]) -> list[ScoredRollout]:
        nonlocal waiting
        if waiting + len(rollouts) > MAX_WAITING:
            raise HTTPException(503, f"{waiting} rollouts are under way; try again later")
        waiting += len(rollouts)
        metrics.waiting.inc(len(rollouts))
        try:
            scored = await scorer(rollouts)
        except DataError as error:  # of the service, such as a cache on a full disk: the rollouts have been read
            raise HTTPException(503, str(error)) from None
        finally:
            waiting -= len(rollouts)
            metrics.waiting.dec(len(rollouts))
        metrics.count(scored)
        return scored

    async def score_without_lengths(rollouts: Sequence[Rollout]) -> list[tuple[ScoredRollout, float]]:
        """Return the rollouts with their rewards, for trainers that need a number and send no lengths."""
        if scorer.config.overlong_buffer:
            raise DataError(
                "this trainer sends no lengths in tokens, which reward.overlong_buffer needs; serve a reward without it"
            )
        rewards = []
        for scored in await score(rollouts):
            if scored.reward.value is None:
                if scored.check_error:
                    raise UnscoredError(f"the answer could not be checked: {scored.check_error}")
                reason = scored.verdict.reason if scored.verdict else ""
                raise UnscoredError(
                    f"no verdict: {reason}; with --on-unscored correctness_only it has a reward all the same"
                )
            rewards.append((scored, scored.reward.value))
        return rewards

    @app.exception_handler(FapoError)
    async def fapo_error(_request: Request, error: FapoError) -> JSONResponse:
        unavailable = isinstance(error, JudgeDownError | EngineError | UnscoredError)
        return _error(503 if unavailable else 400, str(error))

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def bad_request(_request: Request, error: RequestValidationError) -> JSONResponse:
        first, *rest = error.errors()
        more = f" (and {len(rest)} more)" if rest else ""
        return _error(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}{more}; /docs has the form of requests")

    @app.post("/v1/rewards")
    async def rewards(
        rollouts: Annotated[list[RolloutRow], Field(min_length=1, max_length=MAX_ROLLOUTS), Body()],
    ) -> list[RewardRow]:
        """Return one reward for each rollout, in order; null where there is no verdict."""
        if scorer.config.overlong_buffer and any(row.num_tokens is None for row in rollouts):
            raise DataError("the reward has an overlong penalty; send num_tokens with each rollout")
        return [RewardRow.from_scored(scored) for scored in await score([row.rollout() for row in rollouts])]

    @app.post("/slime")
    async def slime(rollout: SlimeRequest) -> float:
        """Return the reward of one rollout as a number; status 503 where there is none."""
        ((_, reward),) = await score_without_lengths([rollout.rollout()])
        return reward

    @app.post("/openrlhf")
    async def openrlhf(batch: OpenRLHFRequest) -> OpenRLHFResponse:
        """Return one reward for each query; status 503 where there is none."""
        scored = await score_without_lengths(batch.rollouts())
        num = len(scored)
        logs = {
            "correct": sum(s.correct for s, _ in scored) / num,
            "flawed_positive": sum(s.rollout_class == "flawed" for s, _ in scored) / num,
            "no_verdict": sum(s.rollout_class == "unscored" for s, _ in scored) / num,
        }
        return OpenRLHFResponse(
            rewards=[reward for _, reward in scored], scores=[float(s.correct) for s, _ in scored], extra_logs=logs
        )

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Return what the service computes; it does not ask the judge."""
        return {"status": "ok", "version": __version__, "reward": scorer.config.kind}

    @app.get("/metrics")
    async def prometheus() -> Response:
        """Return the counters in the form of Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return app


class Guard:
    """ASGI middleware that counts requests, and refuses those without the token.

    Where no token is needed, it refuses requests to other hosts than this machine. A page in a browser on this machine
    could otherwise spend the judge's tokens: a name of its own may lead to 127.0.0.1 (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, bearer_token: str) -> None:
        """Guard an application.

        Args:
            app: Application.
            metrics: Counters of the service.
            bearer_token: Token that clients must send; empty for none.
        """
        self._app, self._metrics = app, metrics
        self._expected = f"Bearer {bearer_token}".encode() if bearer_token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with status 401 or 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                door = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(door, message["status"]).inc()
            await send(message)

        refusal = self._refusal(scope)
        await (refusal(scope, receive, counted) if refusal else self._app(scope, receive, counted))

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        """Return the answer to a request that is not passed on; None if it is."""
        headers = dict(scope["headers"])
        if not self._expected:
            host = headers.get(b"host", b"").decode("latin-1")
            if is_loopback(re.sub(r":\d*$", "", host).strip("[]").lower()):
                return None
            return _error(
                403, f"without {TOKEN_VARIABLE} the service answers at localhost and 127.0.0.1 only, not at {host!r}"
            )
        # compare_digest, so that the time of the comparison does not depend on the token
        if scope["path"] in OPEN_PATHS or hmac.compare_digest(headers.get(b"authorization", b""), self._expected):
            return None
        return _error(401, "send the token of the service as `Authorization: Bearer TOKEN`")


def serve(settings: ServeSettings) -> None:
    """Serve the reward until SIGTERM or Ctrl-C; requests under way are then completed.

    Args:
        settings: Settings of the service.

    Raises:
        ConfigError: The config or a setting cannot be used.
        DataError: The cache or the canaries of the judge cannot be used.
    """
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "access_log": False,
        "timeout_graceful_shutdown": settings.drain_seconds,
    }
    if settings.workers == 1:
        uvicorn.run(make_app(served_scorer(settings), token()), **options)
        return
    served_scorer(settings)  # an error of the user is found here, not in each worker
    with tempfile.TemporaryDirectory(prefix="fapo-serve-") as folder:
        os.environ |= {FOLDER_VARIABLE: folder, SETTINGS_VARIABLE: json.dumps(asdict(settings), default=str)}
        uvicorn.run(f"{__name__}:worker_app", factory=True, workers=settings.workers, **options)


def worker_app() -> FastAPI:
    """Return the application of one of several server processes."""
    stored = json.loads(os.environ[SETTINGS_VARIABLE])
    paths = {name: Path(stored[name]) for name in ("config", "cache") if stored[name]}
    settings = ServeSettings(**stored | {"judge": tuple(stored["judge"])} | paths)
    return make_app(served_scorer(settings), token())


def _error(status: int, message: str) -> JSONResponse:
    """Return an error as JSON."""
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else None
    return JSONResponse({"error": message}, status, headers)
