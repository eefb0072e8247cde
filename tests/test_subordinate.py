"""Whose the ids are that an account makes files under."""

from __future__ import annotations

from pathlib import Path

import pytest

from claimd.subordinate import Lent


def lent(tmp_path: Path, text: str) -> Lent:
    path = tmp_path / "subuid"
    path.write_text(text)
    return Lent(str(path))


@pytest.mark.parametrize(
    ("uid", "account"),
    [
        (1000, 1000),
        (99_999, 99_999),
        (100_000, 100_000),
        (165_535, 100_000),
        (165_536, 165_536),
        (231_072, 231_072),
        (300_005, 165_536),
        (300_010, 300_010),
    ],
)
def test_lent_ids_are_one_account(tmp_path: Path, uid: int, account: int) -> None:
    text = "ada:100000:65536\ngrace:165536:65536\ngrace:300000:10\n"
    assert lent(tmp_path, text).account_of(uid) == account


@pytest.mark.parametrize("text", ["", "ada\n", "ada:x:y\nada:1:2:3\n", ":\n\n#", "ada:100000:-5\n"])
def test_what_is_no_range_lends_nothing(tmp_path: Path, text: str) -> None:
    assert lent(tmp_path, text).account_of(100_001) == 100_001


def test_nor_does_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert Lent(str(tmp_path / "none")).account_of(100_001) == 100_001
