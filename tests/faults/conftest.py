from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory: a sweep makes and removes thousands of small trees."""
    place = Path(
        tempfile.mkdtemp(prefix="claimd-faults-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    )
    yield place
    shutil.rmtree(place, ignore_errors=True)
