"""`fapo critic` and `fapo critiques`: data to train a judge on."""

from __future__ import annotations

from fapo.cli.app import app, console
from fapo.cli.progress import bar_by_name, progress_bars
from fapo.config.options import Options
from fapo.training.critic_data.settings import CriticSettings, CritiquesSettings


@app.command("critic")
def critic(*, settings: Options[CriticSettings]) -> None:
    """Make data to train a GenRM on: solutions with a correct answer, labelled where all votes of a teacher agree.

    The same command continues work that was interrupted, and asks again for what failed.
    """
    from fapo.training.critic_data.build import build
    from fapo.training.critic_data.card import summary

    with progress_bars() as bars:
        card = build(settings, bar_by_name(bars))
    print("\n".join(summary(card)))
    files = f"data: {settings.out}, card: {settings.out.with_suffix('.card.md')}"
    console.line(files)


@app.command("critiques")
def critiques(*, settings: Options[CritiquesSettings]) -> None:
    """Sample critiques for a GenRM to imitate (method=sft), and keep those that name the label.

    The same command continues work that was interrupted.
    """
    from fapo.training.critic_data.critiques import write_critiques

    with progress_bars() as bars:
        kept = write_critiques(settings, bar_by_name(bars))
    print(kept)
    console.line(f"data: {settings.out}")
