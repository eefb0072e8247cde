"""What a person reads when no machine can be made for the system tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from system.machine import MirrorError, root_file_system

# As mmdebstrap 1.2 said it of a mirror that could not be reached.
REFUSED = """#!/bin/sh
echo "I: running apt-get update..." >&2
echo "E: Failed to fetch http://mirror.invalid/dists/trixie/InRelease  Could not resolve 'mirror.invalid'" >&2
echo "E: apt-get update --error-on=any failed" >&2
exit 25
"""


def a_program(place: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In mmdebstrap's stead."""
    place.mkdir()
    (place / "mmdebstrap").write_text(text)
    (place / "mmdebstrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.parent))


def test_a_mirror_that_fails_is_named_with_the_way_on_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_program(tmp_path / "bin", REFUSED, monkeypatch)
    (tmp_path / "claimd-system-test/rootfs-bookworm-0123").mkdir(parents=True)
    with pytest.raises(MirrorError) as caught:
        root_file_system("trixie")
    said = str(caught.value)
    assert "\n" not in said
    assert (
        "of trixie: Failed to fetch http://mirror.invalid/dists/trixie/InRelease  Could not resolve" in said
    )
    assert "make system-test SUITE=" in said and "holds already (bookworm)" in said


def test_half_a_root_file_system_is_never_taken_for_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = '#!/bin/sh\nfor last; do :; done\nmkdir "$last"\nexit 1\n'
    a_program(tmp_path / "bin", half, monkeypatch)
    for _ in range(2):
        with pytest.raises(MirrorError, match="exit code 1"):
            root_file_system("trixie")
    assert not list((tmp_path / "claimd-system-test").glob("rootfs-*"))
