"""A short run of the fuzzer in every test run, and proof that it finds what it looks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from claimd.errors import Code, problem
from claimd.pem import Material
from fuzz import fuzz_claims
from fuzz.claim_mutator import NAMES, Mutator, secrets
from fuzz.fuzz_claims import BadInputError


def test_a_thousand_inputs(tmp_path: Path) -> None:
    tally = fuzz_claims.run(1, range(1000), tmp_path)
    assert set(tally.inputs) >= set(NAMES) - {"untouched"}
    assert tally.outcomes["a certificate and a key"] > 50
    assert tally.outcomes[Code.CLAIM_NOT_RECOGNISED.value] > 50
    assert tally.outcomes[Code.CLAIM_STILL_ARRIVING.value] > 50


def test_a_number_is_the_same_input_for_ever() -> None:
    one, other = Mutator(7), Mutator(7)
    inputs = [one.make(number) for number in range(50)]
    assert [other.make(number) for number in reversed(range(50))] == inputs[::-1]
    assert inputs != [Mutator(8).make(number) for number in range(50)]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (Material((), (), ()), "nothing was found"),
        (
            Material((), (), (problem(Code.CLAIM_NOT_RECOGNISED, file="x", detail="some words"),)),
            "not known",
        ),
        (
            Material(
                (),
                (),
                (
                    problem(
                        Code.CLAIM_NOT_RECOGNISED,
                        file="x",
                        detail="it looks like " + min(each for each in secrets() if each.isalnum()),
                    ),
                ),
            ),
            "a piece of a key",
        ),
    ],
)
def test_a_bad_answer_is_seen(found: Material, why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        fuzz_claims.check_texts(found, secrets())
