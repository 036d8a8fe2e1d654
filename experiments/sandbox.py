r"""An answer checker for programs: unit tests in a sandbox over HTTP, with the requests of SandboxFusion.

    export FAPO_SANDBOX_URL=http://localhost:8080/run_code
    fapo eval problems.jsonl --checker experiments.sandbox:passes_tests ...

The reference of a problem is a JSON object with its unit tests, as in verl's data of programming problems:

    {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}        a program that reads text and prints text
    {"inputs": ["1\n2", "3\n4"], "outputs": ["3", "7"], "fn_name": "add"}   a function; each line is an argument as JSON

The program of the policy runs in the sandbox only. A program that fails is a wrong answer. A sandbox that fails is an
exception, so that the rollout is unscored.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from typing import Any

import aiohttp

from fapo.errors import ConfigError, DataError, EngineError
from fapo.types import Problem

URL_VARIABLE = "FAPO_SANDBOX_URL"
"""Environment variable with the address to which programs are sent."""
RUN_SECONDS = 10
"""Time limit of one run of a program, and of its compilation, in seconds."""
MEMORY_MB = 1024
"""Memory limit of one run, in megabytes."""
TRIES = 3
"""Number of tries of a request that the sandbox does not answer."""
PAUSE = 1.0
"""Seconds before the second try; doubled before the third."""
CODE = re.compile(r"^```(?:python|py)?[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE | re.IGNORECASE)
"""A block of Python in a response; the last one is the program."""
CALL = """

import json as _json, sys as _sys
_target = globals().get({name}) or getattr(globals()["Solution"](), {name})
print(_json.dumps(_target(*[_json.loads(_line) for _line in _sys.stdin.read().splitlines() if _line.strip()])))
"""
"""Text behind a program that defines a function: it reads the arguments, and prints the result."""


async def passes_tests(response: str, reference: str, problem: Problem) -> bool:
    """Return whether the program in a response passes all unit tests; they are run one by one, up to the first failure.

    Args:
        response: Solution, with the program in its last block of Python.
        reference: Unit tests as a JSON object with inputs, outputs and optionally fn_name.
        problem: Problem; its id is named in errors.

    Returns:
        Whether all tests pass; False without a program.

    Raises:
        ConfigError: The address of the sandbox is not set.
        DataError: The reference holds no unit tests.
        EngineError: The sandbox does not answer, or not as it should.
    """
    tests = read_tests(reference, problem.id)
    url = os.environ.get(URL_VARIABLE)
    if not url:
        raise ConfigError(f"set {URL_VARIABLE} to the address of the sandbox, such as http://localhost:8080/run_code")
    programs = CODE.findall(response)
    if not programs:
        return False
    name = tests.get("fn_name")
    program = programs[-1] + (CALL.format(name=json.dumps(name)) if name else "")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3 * RUN_SECONDS)) as session:
        for given, expected in zip(tests["inputs"], tests["outputs"], strict=True):
            output = output_of(await run(session, url, program, given))
            if output is None or not same_output(output, expected, as_json=bool(name)):
                return False
    return True


def read_tests(reference: str, name: str) -> Mapping[str, Any]:
    """Return the unit tests in a reference; raise DataError if there are none. `name` is the id of the problem."""
    try:
        tests = json.loads(reference)
        inputs, outputs = tests["inputs"], tests["outputs"]
        fine = len(inputs) == len(outputs) > 0 and all(isinstance(text, str) for text in [*inputs, *outputs])
        fine = fine and (not tests.get("fn_name") or str(tests["fn_name"]).isidentifier())
    except (ValueError, TypeError, KeyError):
        fine = False
    if not fine:
        raise DataError(f"problem {name}: the reference must be JSON with inputs and outputs, two lists of texts")
    return tests


async def run(session: aiohttp.ClientSession, url: str, program: str, stdin: str) -> Mapping[str, Any]:
    """Run a program in the sandbox, and return its answer; raise EngineError if there is none."""
    body = {
        "code": program,
        "language": "python",
        "stdin": stdin,
        "compile_timeout": RUN_SECONDS,
        "run_timeout": RUN_SECONDS,
        "memory_limit_MB": MEMORY_MB,
        "files": {},
        "fetch_files": [],
    }
    reason = ""
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            async with session.post(url, json=body) as answer:
                if answer.status == 200:
                    found = await answer.json(content_type=None)
                    if isinstance(found, dict):
                        return found
                reason = f"HTTP {answer.status}"
                if answer.status != 429 and answer.status < 500:
                    break
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
    raise EngineError(f"the sandbox at {url} does not run programs: {reason[:300]}")


def output_of(answer: Mapping[str, Any]) -> str | None:
    """Return what a program printed; None if it failed. Raise EngineError for an answer that says neither."""
    status, compiled, ran = answer.get("status"), answer.get("compile_result") or {}, answer.get("run_result") or {}
    if status == "Success" and ran.get("status") == "Finished":
        return ran.get("stdout") or ""
    failed = [part for part in (compiled, ran) if part.get("status") in ("Error", "TimeLimitExceeded")]
    crashed = [part for part in (compiled, ran) if part.get("status") == "Finished" and part.get("return_code")]
    if status == "Failed" and (failed or crashed):
        return None
    raise EngineError(f"the sandbox failed: status {status}, {str(answer.get('message') or '')[:300]}")


def same_output(output: str, expected: str, *, as_json: bool) -> bool:
    """Return whether two outputs are equal: as JSON, or as lines without blanks at their ends."""
    if as_json:
        try:
            return bool(json.loads(output) == json.loads(expected))
        except (ValueError, RecursionError):
            pass
    first, second = ([line.rstrip() for line in text.rstrip().splitlines()] for text in (output, expected))
    return first == second
