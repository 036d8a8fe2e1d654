"""The models that a server says it has, and a name that the command line leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fapo.errors import ConfigError, EngineError
from fapo.inference.models import model_specs
from fapo.inference.served_models import served_models
from tests.support.json_server import json_server

NOTHING = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Forget the servers of other tests, which may have had the same port."""
    served_models.cache_clear()
    yield


def listed(*names: str) -> dict[str, Any]:
    """Return the answers of a server that has these models."""
    return {"/v1/models": {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}}


@pytest.mark.parametrize("path", ["", "/v1", "/v1/"])
def test_the_names_are_those_of_the_server(path: str) -> None:
    with json_server(listed("b", "a")) as url:
        assert served_models(f"{url}{path}") == ("b", "a")


@pytest.mark.parametrize("answer", ["<html>", "[]", '{"data": 3}', '{"data": [{"name": "a"}]}', "[" * 100_000])
def test_an_answer_that_is_no_list_of_models(answer: str) -> None:
    with json_server({"/v1/models": answer}) as url, pytest.raises(EngineError, match="no list of models"):
        served_models(f"{url}/v1")


def test_a_server_without_the_path_and_no_server() -> None:
    with json_server({}) as url, pytest.raises(EngineError, match="answers HTTP 404"):
        served_models(f"{url}/v1")
    with pytest.raises(EngineError, match="no answer"):
        served_models(NOTHING)


def test_the_only_model_of_a_server_needs_no_name() -> None:
    with json_server(listed("genrm")) as url:
        (spec,) = model_specs([f"{url}/v1"], [], "--judge", "--model")
    assert (spec.name, spec.urls) == ("genrm", (f"{url}/v1",))


@pytest.mark.parametrize(("names", "shown"), [(["a", "b"], "has a, b; give one name"), ([], "has no models")])
def test_a_name_that_is_missing_is_one_of_those_of_the_server(names: list[str], shown: str) -> None:
    with json_server(listed(*names)) as url, pytest.raises(ConfigError) as error:
        model_specs([f"{url}/v1"], [], "--judge", "--model")
    assert str(error.value).startswith("--model is missing: ") and shown in str(error.value)
