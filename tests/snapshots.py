"""Texts as people see them, kept in tests/snapshots: a change of a text shows in a review.

CLAIMD_SNAPSHOTS=write makes them anew.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

_DIRECTORY = Path(__file__).parent / "snapshots"


def assert_snapshot(name: str, lines: Sequence[str]) -> None:
    path = _DIRECTORY / f"{name}.txt"
    text = "\n".join(lines) + "\n"
    if os.environ.get("CLAIMD_SNAPSHOTS") == "write":
        _DIRECTORY.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{path} is missing: look at the text, then CLAIMD_SNAPSHOTS=write"
    assert text == path.read_text(), f"{name} changed: look at it, then CLAIMD_SNAPSHOTS=write"
