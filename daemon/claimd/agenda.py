"""When the next pass is due. Pure: time is an argument, in seconds of one monotonic clock.

Invariant: a reason for a pass is never lost, and no reason can make passes follow each other without
end: neither a program that keeps writing into the drop directory nor a worker that crashes at once.
"""

from __future__ import annotations

# After the first, second, ... crash in a row; elapsed in comments.
CRASH_DELAYS_SECONDS = (
    1.0,  # 1 s
    2.0,  # 3 s
    5.0,  # 8 s
    10.0,  # 18 s
    30.0,  # 48 s
    60.0,  # 1 min 48 s, then every minute
)

# From one pass's end to the next one for a hint, when hints keep coming. Two files copied by hand never
# wait; somebody who keeps writing there gets a pass every five seconds.
HINT_DELAYS_SECONDS = (0.0, 0.0, 0.0, 1.0, 2.0, 5.0)

# After so long without a pass the counting of hints begins anew.
QUIET_SECONDS = 30.0

# A worker that wants to come back at once still lets the machine breathe.
SHORTEST_RETURN_SECONDS = 0.5


class Agenda:
    def __init__(self) -> None:
        self._due: float | None = None
        self._by_hint = False
        self._ended: float | None = None
        self._hints_in_row = 0
        self._crashes_in_row = 0

    @property
    def due(self) -> float | None:
        return self._due

    @property
    def crashes_in_row(self) -> int:
        return self._crashes_in_row

    def hint(self, now: float) -> None:
        """There is something to do. It may bring a pass forward, never put it off."""
        due = now
        if self._ended is not None and not self._is_quiet(now):
            due = max(now, self._ended + _at(HINT_DELAYS_SECONDS, self._hints_in_row))
        if self._due is None or due < self._due:
            self._due, self._by_hint = due, True

    def started(self, now: float) -> None:
        if self._is_quiet(now):
            self._hints_in_row = 0
        elif self._by_hint:
            self._hints_in_row += 1
        self._due, self._by_hint = None, False

    def ended(self, now: float, after_seconds: float | None) -> None:
        self._ended = now
        self._crashes_in_row = 0
        if after_seconds is None:
            return
        due = now + max(after_seconds, SHORTEST_RETURN_SECONDS)
        # A hint that came while the pass worked is not put off: it may be what the pass did not see.
        if self._due is None or due < self._due:
            self._due, self._by_hint = due, False

    def crashed(self, now: float) -> None:
        self._ended = now
        self._due = now + _at(CRASH_DELAYS_SECONDS, self._crashes_in_row)
        self._crashes_in_row += 1

    def _is_quiet(self, now: float) -> bool:
        return self._ended is None or now - self._ended >= QUIET_SECONDS


def _at(delays: tuple[float, ...], index: int) -> float:
    return delays[min(index, len(delays) - 1)]
