"""Models by their addresses, and seeds of models in this process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fapo.config.sampling import Sampling
from fapo.errors import ConfigError
from fapo.inference.models import ModelSpec, model_specs

A, B = "http://a:1/v1", "http://b:1"
MODELS = [
    ((A,), ("m",), [("m", (A,))]),
    ((A, B), ("m", "n"), [("m", (A,)), ("n", (B,))]),
    ((A, B), ("m",), [("m", (A, B))]),
    ((A, B), ("m", "m"), [("m", (A, B))]),
    (("local:miniature:policy",), (), [("miniature:policy", ())]),
    (("miniature:policy", "/"), (), [("miniature:policy", ()), ("/", ())]),
    ((A, "local:x", B), ("m", "n"), [("m", (A,)), ("x", ()), ("n", (B,))]),
]


@pytest.mark.parametrize(("addresses", "names", "expected"), MODELS)
def test_addresses_and_names_make_models(addresses, names, expected) -> None:
    assert [(model.name, model.urls) for model in model_specs(addresses, names, "--policy")] == expected


NO_MODELS = [
    ((), (), "--policy is missing"),
    ((A,), (), "--policy-model is missing, and the server does not say which models it has: "),
    ((A, B), ("m", "n", "o"), "--policy-model: 3 names for 2 servers"),
    (("local:x",), ("m",), "--policy-model: 1 names for 0 servers"),
    (("a:8000",), ("m",), "--policy: 'a:8000' is neither a URL"),
]


@pytest.mark.parametrize(("addresses", "names", "message"), NO_MODELS)
def test_addresses_that_make_no_models(addresses, names, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        model_specs(addresses, names, "--policy")
    assert message in str(caught.value)


def test_a_local_model_with_a_seed_draws_by_seed_and_question(tiny_genrm: Path) -> None:
    import torch

    from fapo.inference.models import reseeded

    model = ModelSpec(str(tiny_genrm)).open("--teacher", Sampling(temperature=1.0, max_tokens=8), seed=1)
    ask = [[{"role": "user", "content": f"start {n}, add 2; mod 5\n= 1\n#0 3+2=5\n"}] for n in range(20)]

    def said(seed: int) -> list[str]:
        return [completion.text for completion in asyncio.run(reseeded(model, seed)(ask))]

    state = torch.get_rng_state()
    first = said(1)
    torch.rand(3)
    assert said(1) == first
    assert said(2) != first
    torch.set_rng_state(state)
    before = torch.rand(1)
    torch.set_rng_state(state)
    said(1)
    assert torch.rand(1) == before, "torch's own state is left alone"


def test_a_local_model_knows_what_the_length_limit_ended(tiny_genrm: Path) -> None:
    chat = [{"role": "user", "content": "start 1, add 2; mod 5\n= 3\n#0 1+2=3\n"}]
    spec = ModelSpec(str(tiny_genrm))
    (whole,) = asyncio.run(spec.open("--judge", Sampling(max_tokens=200))([chat]))
    assert 0 < whole.num_tokens < 200 and not whole.truncated
    for max_tokens, truncated in ((whole.num_tokens, True), (whole.num_tokens + 1, False)):
        (found,) = asyncio.run(spec.open("--judge", Sampling(max_tokens=max_tokens))([chat]))
        assert (found.text, found.truncated) == (whole.text, truncated)
