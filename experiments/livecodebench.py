r"""Turn problems of LiveCodeBench into problems for `fapo eval`, with the unit tests as the reference.

    python -m experiments.livecodebench test.jsonl --out problems.jsonl

The input has the columns of LiveCodeBench's code generation data: `question_id`, `question_content`, `starter_code`,
`public_test_cases`, `private_test_cases`, `metadata`, `platform` and `difficulty`. Private tests are JSON, or JSON that
was pickled, compressed and written as base64. Source: `lcb_runner/benchmarks/code_generation.py` of LiveCodeBench.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import pickletools
import zlib
from pathlib import Path

from fapo.data.columns import Row
from fapo.data.jsonl import write_jsonl
from fapo.data.sources import read_rows
from fapo.errors import DataError

STARTER = """{question}

Complete this code, and write the whole program in one block of Python:

```python
{starter}
```"""
"""Problem with a function to be completed."""
STDIN = """{question}

Write a program that reads the input from standard input and prints the output, in one block of Python."""
"""Problem with text in and text out."""


AROUND_TEXT = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP"}
"""Operations of a pickle that stand around a text and make no object."""
TEXT = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
"""Operations of a pickle that are a text."""


def read_tests(where: str, row: Row) -> list[dict[str, str]]:
    """Return the public and the private unit tests of a problem.

    Args:
        where: File and line of the row, for the message.
        row: Row of LiveCodeBench.

    Returns:
        Tests with `input` and `output`, in order.

    Raises:
        DataError: A column holds no tests.
    """
    tests: list[dict[str, str]] = []
    for column in ("public_test_cases", "private_test_cases"):
        try:
            found = json.loads(_unpacked(row[column]))
            tests += [{"input": test["input"], "output": test["output"]} for test in found]
        except (KeyError, AttributeError, TypeError, ValueError, zlib.error) as error:
            raise DataError(f"{where}: {column} holds no tests ({error!r}); give rows of LiveCodeBench") from None
    return tests


def _unpacked(text: str) -> str:
    """Return the JSON in a column of tests; text that is no base64 is JSON already.

    The operations of a pickle are read, and never executed: a pickle can run any code.
    """
    if text.lstrip().startswith("["):
        return text
    try:
        packed = base64.b64decode(text, validate=True)
    except binascii.Error:
        return text
    found = [(operation.name, value) for operation, value, _ in pickletools.genops(zlib.decompress(packed))]
    others = {name for name, _ in found} - AROUND_TEXT - TEXT
    texts = [value for name, value in found if name in TEXT]
    if others or len(texts) != 1 or not isinstance(texts[0], str):
        raise ValueError(f"more than a text is packed in it: {', '.join(sorted(others)) or len(texts)}")
    return texts[0]


def problem_row(where: str, row: Row) -> Row:
    """Return a problem of LiveCodeBench as a problem for `fapo eval`.

    Args:
        where: File and line of the row, for the message.
        row: Row of LiveCodeBench.

    Returns:
        Row with id, problem, reference (unit tests as JSON), platform and difficulty.

    Raises:
        DataError: A column is missing or holds something else.
    """
    tests = read_tests(where, row)
    try:
        starter, question = row["starter_code"], row["question_content"]
        name = json.loads(row["metadata"]).get("func_name")
        form = STARTER if starter.strip() else STDIN
        problem = form.format(question=question.strip(), starter=starter.rstrip())
        reference = {"inputs": [test["input"] for test in tests], "outputs": [test["output"] for test in tests]}
        return {
            "id": row["question_id"],
            "problem": problem,
            "reference": json.dumps(reference | ({"fn_name": name} if name else {})),
            "platform": row["platform"],
            "difficulty": row["difficulty"],
        }
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{where}: not a row of LiveCodeBench ({error!r})") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="JSONL or Parquet file of LiveCodeBench, or a Hugging Face id")
    parser.add_argument("--split", help="split of a Hugging Face data set")
    parser.add_argument("--out", type=Path, required=True, help="JSONL file for the problems")
    args = parser.parse_args()
    rows = [problem_row(where, row) for where, row in read_rows(args.source, args.split)]
    write_jsonl(args.out, rows)
    print(f"{len(rows)} problems: {args.out}")


if __name__ == "__main__":
    main()
