"""Whether somebody else may write to a dropped file: by the tables of acl(5)."""

from __future__ import annotations

import struct

import pytest

from claimd.access import others_may_write

TINA, TOM = 1001, 1002
# Of tina's own; the technicians'; one of several people.
TINAS, DROP, STAFF = 1001, 900, 50
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
NOBODY = 0xFFFFFFFF


def acl(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def dropped(*, mask: int, other: int, group: int = 0) -> bytes:
    """As the drop directory's default ACL makes it, with what a mode leaves of it."""
    return acl(
        (USER_OBJ, 6, NOBODY),
        (GROUP_OBJ, group, NOBODY),
        (GROUP, 0, DROP),
        (MASK, mask, NOBODY),
        (OTHER, other, NOBODY),
    )


def may(mode: int, found: bytes | None, *, group: int = TINAS, door: int | None = DROP) -> bool:
    return others_may_write(
        mode, found, owner=TINA, group=group, door=door, is_private=lambda number: number == TINAS
    )


@pytest.mark.parametrize(
    ("mode", "group", "door", "expected"),
    [
        (0o600, TINAS, DROP, False),
        (0o644, STAFF, None, False),
        (0o755, STAFF, DROP, False),
        (0o664, TINAS, DROP, False),
        (0o775, TINAS, None, False),
        (0o664, STAFF, DROP, True),
        (0o660, DROP, DROP, True),
        (0o602, TINAS, DROP, True),
        (0o666, TINAS, DROP, True),
        (0o777, TINAS, None, True),
        # Whoever gets here is in the group, which is asked before "other" is.
        (0o606, DROP, DROP, False),
        (0o606, DROP, None, True),
    ],
)
def test_by_the_mode(mode: int, group: int, door: int | None, expected: bool) -> None:
    assert may(mode, None, group=group, door=door) is expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (dropped(mask=0, other=0), False),
        # chmod 0777: the mask is no entry, and a technician's group says no.
        (dropped(mask=7, other=7), False),
        (dropped(mask=7, other=7, group=7), False),
        (acl((USER, 6, TOM), (GROUP_OBJ, 0, 0), (GROUP, 0, DROP), (MASK, 6, 0), (OTHER, 0, 0)), True),
        (acl((USER, 6, TOM), (GROUP_OBJ, 0, 0), (GROUP, 0, DROP), (MASK, 4, 0), (OTHER, 0, 0)), False),
        (acl((USER, 4, TOM), (GROUP_OBJ, 0, 0), (GROUP, 0, DROP), (MASK, 6, 0), (OTHER, 0, 0)), False),
        (acl((USER, 6, TINA), (GROUP_OBJ, 0, 0), (GROUP, 0, DROP), (MASK, 6, 0), (OTHER, 0, 0)), False),
        (acl((GROUP_OBJ, 0, 0), (GROUP, 6, DROP), (MASK, 6, 0), (OTHER, 0, 0)), True),
        (acl((GROUP_OBJ, 0, 0), (GROUP, 6, STAFF), (GROUP, 0, DROP), (MASK, 6, 0), (OTHER, 0, 0)), True),
        (acl((GROUP_OBJ, 0, 0), (GROUP, 6, TINAS), (MASK, 6, 0), (OTHER, 0, 0)), False),
        (acl((GROUP_OBJ, 6, 0), (OTHER, 0, 0)), False),
        (acl((GROUP_OBJ, 0, 0), (OTHER, 6, 0)), True),
        (acl(), False),
    ],
)
def test_by_the_acl(found: bytes, expected: bool) -> None:
    # The mode's group bits are the mask and say nothing.
    assert may(0o660, found) is expected


def test_without_a_closed_door_everybody_else_is_other() -> None:
    assert may(0o666, dropped(mask=6, other=6), door=None)
    assert not may(0o600, dropped(mask=6, other=0), door=None)


@pytest.mark.parametrize("found", [b"", b"\2\0\0", acl() + b"\1", acl(version=3)])
def test_what_can_t_be_made_out_counts_as_writable(found: bytes) -> None:
    assert may(0o600, found)
