from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from claimd import smallfile


def test_a_file_of_exactly_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 10)
    assert smallfile.read(str(path), 10) == b"x" * 10


def test_one_byte_more(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 11)
    with pytest.raises(OSError) as caught:
        smallfile.read(str(path), 10)
    assert (caught.value.errno, caught.value.strerror) == (errno.EFBIG, "more than 10 bytes")


def test_a_terabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="more than 10 bytes"):
        smallfile.read(str(path), 10)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "link").symlink_to("f")
    assert smallfile.read(str(tmp_path / "link"), 10) == b"x"


@pytest.mark.parametrize("kind", ["fifo", "directory", "device"])
def test_what_is_no_file_blocks_nobody(tmp_path: Path, kind: str) -> None:
    before = set(os.listdir("/proc/self/fd"))
    path = tmp_path / "odd"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path = Path("/dev/zero")
    with pytest.raises(OSError):
        smallfile.read(str(path), 10)
    assert set(os.listdir("/proc/self/fd")) == before, "nothing is left open"


def test_a_missing_one_is_that(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        smallfile.read(str(tmp_path / "missing"), 10)
