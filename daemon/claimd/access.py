"""Who besides its owner may write to a file in the drop directory: by its mode, or by its POSIX ACL. Pure.

Invariant: what can't be made out counts as writable. Reckoned is for an account that gets into the drop
directory at all, which on a device only root, the daemon and the technicians' group do.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Of system.posix_acl_access, little-endian: a version, then a tag, permissions and an id each
# (include/uapi/linux/posix_acl_xattr.h and posix_acl.h of the kernel).
_HEADER, _ENTRY = struct.Struct("<I"), struct.Struct("<HHI")
_VERSION = 2
_USER, _GROUP_OF_FILE, _GROUP, _MASK, _OTHER = 0x02, 0x04, 0x08, 0x10, 0x20
_WRITE = 2


def others_may_write(
    mode: int,
    acl: bytes | None,
    *,
    owner: int,
    group: int,
    door: int | None,
    is_private: Callable[[int], bool],
) -> bool:
    """`acl`: None where there is none. `door`: the group whose members alone reach the file; None: everybody.

    `is_private` (a group's id): whether nobody but the owner is in it.
    """
    entries = _entries(mode, group) if acl is None else _parsed(acl)
    if entries is None:
        return True
    # What a group's or a named user's entry grants is cut by the mask (acl(5)).
    mask = next((allowed for tag, allowed, _ in entries if tag == _MASK), _WRITE)
    groups: set[int] = set()
    for tag, allowed, who in entries:
        number = group if tag == _GROUP_OF_FILE else who
        if tag in (_GROUP_OF_FILE, _GROUP):
            groups.add(number)
        if not allowed & mask & _WRITE:
            continue
        if tag == _USER and number != owner:
            return True
        if tag in (_GROUP_OF_FILE, _GROUP) and not is_private(number):
            return True
    # Who is in a group that is named is not asked as "other", whatever that group may do.
    if door is not None and door in groups:
        return False
    return any(tag == _OTHER and allowed & _WRITE for tag, allowed, _ in entries)


def _entries(mode: int, group: int) -> list[tuple[int, int, int]]:
    return [(_GROUP_OF_FILE, mode >> 3 & 7, group), (_OTHER, mode & 7, 0)]


def _parsed(acl: bytes) -> list[tuple[int, int, int]] | None:
    body = acl[_HEADER.size :]
    if len(acl) < _HEADER.size or len(body) % _ENTRY.size or _HEADER.unpack_from(acl) != (_VERSION,):
        return None
    return list(_ENTRY.iter_unpack(body))
