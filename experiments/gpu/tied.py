"""Copy a GGUF file without `output.weight`, for a model that uses its embedding as output layer.

    python -m experiments.gpu.tied qwen2.5-coder-0.5b-instruct-q4_k_m.gguf qwen05.gguf

Qwen2.5-Coder-0.5B in four bits has 491 MB; 145 MB are a second copy of the embedding in eight bits. Where the
file has no output layer, transformers ties both layers, as in the released model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fapo.errors import DataError

OUTPUT, EMBEDDING = "output.weight", "token_embd.weight"


def without_output(source: Path, target: Path) -> None:
    """Copy all settings and tensors of `source` but its output layer to `target`.

    Args:
        source: GGUF file with an output layer of the shape of its embedding.
        target: GGUF file to write.

    Raises:
        DataError: The file has no output layer, or one of another shape.
    """
    import gguf

    reader = gguf.GGUFReader(source)
    shapes = {tensor.name: tuple(tensor.shape) for tensor in reader.tensors}
    if shapes.get(OUTPUT) is None or shapes[OUTPUT] != shapes.get(EMBEDDING):
        raise DataError(f"{source}: has no {OUTPUT} of the shape of {EMBEDDING}: there is nothing to leave out")
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kind = field.types[0]
            part = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, sub_type=part)
    for tensor in reader.tensors:
        if tensor.name != OUTPUT:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Write the copy that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="GGUF file of a model with tied layers")
    parser.add_argument("target", type=Path, help="GGUF file to write")
    given = parser.parse_args()
    try:
        without_output(given.source, given.target)
    except DataError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
