"""Whose a user id is: one that /etc/subuid lends to an account is that account's, see subuid(5).

In a user namespace an account with subordinate ids makes files under 65,536 owners: what is bounded by
account, and given in turn, must not be had 65,536 times. Invariant: never raises, and asks no directory
service: a file that can't be read lends nothing, and all ranges of one account are one account beside it.
"""

from __future__ import annotations

from bisect import bisect_right

from . import smallfile

SUBUID = "/etc/subuid"
# Some 30,000 accounts.
_MAX_BYTES = 1024 * 1024


class Lent:
    def __init__(self, path: str = SUBUID) -> None:
        self._ranges = sorted(_ranges(path))
        self._starts = [start for start, _, _ in self._ranges]

    def account_of(self, uid: int) -> int:
        """The user id that stands for an account's subordinate ones, or the id itself."""
        at = bisect_right(self._starts, uid) - 1
        if at < 0:
            return uid
        _, end, account = self._ranges[at]
        return account if uid < end else uid


def _ranges(path: str) -> list[tuple[int, int, int]]:
    """First id, the one after the last, and the one that stands for the account."""
    try:
        lines = smallfile.read(path, _MAX_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    account_of: dict[str, int] = {}
    found = []
    for line in lines:
        name, *numbers = line.split(":")
        try:
            start, count = map(int, numbers)
        except ValueError:
            continue
        found.append((start, start + count, account_of.setdefault(name, start)))
    return found
