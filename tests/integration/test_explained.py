"""Each failure of the catalogue, provoked against a real peer, has its own code and its own words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from claimd.errors import CATALOGUE, Code
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import FOREIGN_ACCOUNT, KeyKind, Refusal
from provocations import ELSEWHERE, PROVOCATIONS, REFUSALS, NeedsRootError, Provocation, Stage, fields

QUICK = Settings(key_kind=KeyKind.EC, connects_per_second=None)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path_factory.mktemp("sandbox"), QUICK) as running:
        yield running


@pytest.mark.parametrize("wanted", PROVOCATIONS, ids=lambda wanted: wanted.code.value)
def test_a_failure_has_its_own_code(wanted: Provocation, sandbox: Sandbox, tmp_path: Path) -> None:
    try:
        seen = wanted.provoke(Stage(tmp_path, sandbox))
    except NeedsRootError:
        pytest.skip("needs root")
    finally:
        sandbox.faults.clear()
    assert seen.code == wanted.code.value, seen.said
    assert set(seen.said) >= {"message", "cause", "remedy", "commands", "documentation"}
    words = CATALOGUE[wanted.code]
    named = {name for text in (words.happened, words.cause, words.remedy) for name in fields(text)}
    assert named <= set(seen.said["fields"]), "a field that the words name was not given"


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_claim_of_another_account_however_it_is_turned_away(refusal: Refusal, tmp_path: Path) -> None:
    with Sandbox.start(tmp_path / "sandbox", replace(QUICK, refusal=refusal)) as sandbox:
        stage = Stage(tmp_path, sandbox)
        stage.claim(account=FOREIGN_ACCOUNT)
        seen = stage.ask()
    assert seen.code == "claim-not-accepted"
    assert "localhost (region: unknown)" in seen.said["message"]
    assert seen.said["commands"] == [
        "aws sts get-caller-identity",
        "aws iot describe-endpoint --endpoint-type iot:Data-ATS",
        "claimd config show",
    ]


def test_every_code_is_provoked_or_says_how() -> None:
    provoked = {one.code for one in PROVOCATIONS}
    assert not provoked & set(ELSEWHERE)
    missing = set(Code) - provoked - set(ELSEWHERE)
    assert not missing, f"add a provocation to tests/provocations.py: {sorted(c.value for c in missing)}"
