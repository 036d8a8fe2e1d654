"""`fapo serve`: the reward as an HTTP service."""

from __future__ import annotations

from fapo.cli.app import app
from fapo.config.options import Options
from fapo.integrations.server.settings import ServeSettings


@app.command("serve")
def serve(*, settings: Options[ServeSettings]) -> None:
    """Serve flawed-aware rewards over HTTP, for slime, miles, OpenRLHF and any other trainer.

    The reward is that of a config, or FAPO's reward with a --judge. The routes are /v1/rewards, /slime and /openrlhf;
    /docs describes them, /health and /metrics watch the service.
    """
    from fapo.integrations.server.app import serve as run

    run(settings)
