"""`fapo configs`: the configs and prompts that fapo ships."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from fapo.cli.app import app
from fapo.errors import ConfigError


@app.command("configs")
def configs(action: Positional[Literal["list", "show"]] = "list", name: Positional[str] = "", /) -> None:
    """List the configs and prompts that fapo ships, or print one of them, to be copied and changed.

    `fapo configs show fapo_7b > mine.toml` makes a config of your own. A prompt of a policy is data.prompt or --prompt,
    a prompt of a judge is judge.template or --template.

    Args:
        action: list, or show to print the text of one.
        name: Name of a config or a prompt, for show.
    """
    from fapo.config.paths import shipped_configs
    from fapo.data.problems import built_in_prompts
    from fapo.judge.template import built_in_templates, template_file

    kinds: dict[str, dict[str, Path]] = {
        "configs": shipped_configs(),
        "prompts of a policy": built_in_prompts(),
        "prompts of a judge": {found: template_file(found) for found in built_in_templates()},
    }
    if action == "list":
        for kind, files in kinds.items():
            print(f"{kind}:")
            width = max(map(len, files))
            print(*(f"  {found:<{width}}  {_summary(file)}".rstrip() for found, file in files.items()), sep="\n")
        return
    known = {found: file for files in kinds.values() for found, file in files.items()}
    if name not in known:
        raise ConfigError(f"no config or prompt {name!r}; give one of {', '.join(known)}")
    print(known[name].read_text(encoding="utf-8"), end="")


def _summary(file: Path) -> str:
    """Return the comment in the first line of a config; empty for a prompt."""
    with file.open(encoding="utf-8") as text:
        return text.readline().removeprefix("#").strip() if file.suffix == ".toml" else ""
