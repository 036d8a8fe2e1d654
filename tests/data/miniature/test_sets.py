"""The problem sets and models that a config can name."""

from __future__ import annotations

import pytest

from fapo.data.miniature.sets import SETS, base_model, labelled, problems
from fapo.data.miniature.world import parse, split_of
from fapo.errors import FapoError


@pytest.mark.parametrize("name", sorted(SETS))
def test_a_named_set_has_unique_problems_of_its_split(name: str) -> None:
    found = problems(f"miniature:{name}", limit=50)
    assert len({problem.id for problem in found}) == len(found) == 50
    assert all(problem.source == f"miniature-{name}" for problem in found)
    assert {split_of(t.start, t.operations) for t in (parse(p.text) for p in found)} == {SETS[name].split}


def test_ids_of_a_whole_set_are_unique() -> None:
    found = problems("miniature:train")
    assert len({problem.id for problem in found}) == len(found) == SETS["train"].size


@pytest.mark.parametrize("source", [problems, labelled, base_model], ids=lambda f: f.__name__)
def test_an_error_for_an_unknown_name_lists_the_known_ones(source) -> None:
    with pytest.raises(FapoError, match=r"miniature:nonsense.* known: "):
        source("miniature:nonsense")
