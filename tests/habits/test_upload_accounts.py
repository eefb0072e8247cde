"""The accounts that can only drop, as packaging/sshd sets them up: where there are root, sshd, namespaces."""

from __future__ import annotations

import re

import pytest

import premises
from habits.clients import NEEDED_TOOLS
from habits.upload_accounts import ACTS, DROPS, EXPECTED, PACKAGED

WHY_NOT = premises.missing(*NEEDED_TOOLS)


@pytest.mark.habits
@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_each_account_can_do_what_the_table_says() -> None:
    done = premises.enter("habits.upload_accounts", (), capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_a_row_of_each_kind() -> None:
    acts = ("scp", "scp -O", "read another's file", "run a command", "forward a port")
    done = premises.enter("habits.upload_accounts", acts, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(acts) + 2


def test_the_table_is_about_every_act() -> None:
    rows = [re.split(" {2,}", line)[0] for line in EXPECTED.splitlines()[1:]]
    assert rows == [*DROPS, *ACTS]


def test_the_page_names_both_groups_and_every_file() -> None:
    page = (PACKAGED / "README.md").read_text()
    snippet = (PACKAGED / "claimd-upload.conf").read_text()
    groups = re.findall(r"^Match Group (\S+)", snippet, re.MULTILINE)
    assert groups == ["claimd-upload", "claimd-upload-scp"]
    files = [path.name for path in PACKAGED.iterdir() if path.name != "README.md"]
    assert all(f"`{name}`" in page or name in page for name in (*groups, *files))
