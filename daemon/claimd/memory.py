"""What the intake knows of earlier claims: whether what it meets is new, in use, or used up.

Invariant: a claim that is nowhere any more (forgotten, or not needed when it came) is a new one: a live claim
is never turned away for what is only remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .attempt import State
from .errors import ClaimdError, Code
from .ledger import Taken
from .model import spoken

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from .drop import Entry
    from .errors import Problem
    from .ledger import Ledger, Moment
    from .model import Claim
    from .store import Store

# Of a flood of junk so much is remembered, to read the rest first: some 20 MB for the seconds of a pass.
_MAX_READ_BEFORE = 131_072


class Memory:
    """The ledger, the record of the attempt and the kept claims, as one pass sees them."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store = store
        self._used: frozenset[str] | None = None
        self._held: frozenset[str] | None = None
        self.ledger = ledger
        self.read_before: set[tuple[str, int]] = set()

    def remember(self, claim: Claim, names: Iterable[str], owner: int | None, now: Moment) -> None:
        lives = claim.certificate.not_before <= now.wall < claim.certificate.not_after
        taken = Taken(
            claim.fingerprint,
            claim.certificate.public_key_id,
            tuple(sorted(names)),
            spoken(claim.certificate.not_after),
            owner,
            now if lives else None,
        )
        self._held = self._all_held() | {claim.fingerprint}
        self.ledger = self.ledger.with_taken(taken, self._held)

    def let_go_of(self, others: Mapping[str, Problem]) -> None:
        """Files that are something else than the claim that once came under their names."""
        names = {name for name, found in others.items() if found.code is not Code.CLAIM_ALREADY_TAKEN_IN}
        self.ledger = self.ledger.without_names(names)

    def remember_read(self, entries: Iterable[Entry]) -> None:
        if len(self.read_before) > _MAX_READ_BEFORE:
            self.read_before.clear()
        self.read_before.update((entry.name, entry.stamp.ctime_ns) for entry in entries if not entry.folder)

    def is_used_up(self, fingerprint: str) -> bool:
        """Whether the claim has become an identity."""
        return fingerprint in self._used_up()

    def is_in_use(self, fingerprint: str) -> bool:
        """Whether it was taken in before and lies in reserve or serves the open attempt.

        A claim that was forgotten (`claimd forget`) or not needed at that time is a new one.
        """
        return any(t.fingerprint == fingerprint for t in self.ledger.taken) and self._is_held(fingerprint)

    def held_for(self, owner: int | None) -> int:
        """How many claims of this account are kept."""
        mine = {taken.fingerprint for taken in self.ledger.taken if taken.owner == owner}
        return len(mine & self._all_held())

    def taken_with_key(self, public_key_id: str) -> Taken | None:
        """The claim that was taken in with this key, for a half that comes back."""
        for taken in self.ledger.taken:
            if taken.public_key_id != public_key_id:
                continue
            if self.is_used_up(taken.fingerprint) or self.is_in_use(taken.fingerprint):
                return taken
        return None

    def was_taken_from(self, fingerprint: str, names: Collection[str]) -> bool:
        return any(t.fingerprint == fingerprint and set(names) <= set(t.names) for t in self.ledger.taken)

    def _used_up(self) -> frozenset[str]:
        """Of the record as it was before this pass: a look changes nothing in it."""
        if self._used is None:
            try:
                record = self._store.load_record()
            except (ClaimdError, OSError):
                return frozenset()  # the pass itself says what is wrong with it
            used = {each.claim for each in record.history if each.result == "active"}
            attempt = record.attempt
            if attempt is not None and attempt.claim and attempt.state in (State.REGISTERED, State.ACTIVE):
                used.add(attempt.claim.fingerprint)
            self._used = frozenset(used)
        return self._used

    def _is_held(self, fingerprint: str) -> bool:
        return fingerprint in self._all_held()

    def _all_held(self) -> frozenset[str]:
        """Read once: while a pass looks, nothing else changes it, and a flood asks thousands of times."""
        if self._held is None:
            self._held = frozenset(claim.fingerprint for claim in self._store.claims())
        return self._held
