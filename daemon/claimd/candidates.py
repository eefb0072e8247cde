"""Which claim an attempt uses, and whether any: the others stay in reserve until the identity is there."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

from . import attempt as table
from . import blocked, lapse
from .attempt import Attempt, ClaimRecord, Event, State
from .errors import Code, Problem, problem
from .intake import Intake
from .logbook import Logbook
from .model import Claim, short
from .recovery import serve_again

log = logging.getLogger(__name__)

_WITHOUT_CLAIM = frozenset({*table.ENDED, State.REGISTERED})


class Candidates:
    """The claims that lie here. Single use, as its pass."""

    def __init__(self, book: Logbook, intake: Intake) -> None:
        self._book = book
        self._store = book.store
        self._intake = intake
        self._tried: set[str] = set()

    def bury_expired(self) -> None:
        mine = self._book.record.attempt.claim if self._book.record.attempt else None
        dead = [
            claim
            for claim in self._store.claims()
            if not (mine and mine.fingerprint == claim.fingerprint) and self._is_dead(claim)
        ]
        untold = dict.fromkeys(claim.fingerprint for claim in self._intake.expired)
        untold.update(
            dict.fromkeys(c.fingerprint for c in dead if not self._book.is_told(c.fingerprint, "failed"))
        )
        self._book.ended(untold, "failed", Code.CLAIM_EXPIRED)
        for claim in dead:
            try:
                self._store.destroy_claim(claim.fingerprint)
            except OSError as error:
                log.warning("a claim can't be removed: %s: %s", short(claim.fingerprint), error.strerror)

    def adopt(self) -> Problem | None:
        """Give the open attempt, or a new one, the most promising claim. Others stay in reserve.

        Returns why none is used, where that has to be said. Raises OSError.
        """
        # One that is dead and can't be removed is no claim.
        claims = [claim for claim in self._store.claims() if not self._is_dead(claim)]
        attempt = self._book.record.attempt
        if attempt is None or attempt.state in table.ENDED:
            # No claim is spent on a device that has an identity, and only can't point to it now.
            serve_again(self._store, self._book.record)
        if not claims:
            return None
        best = self._most_promising(claims, attempt)
        if attempt is not None and attempt.state is State.REGISTERED:
            if not lapse.is_key_lost(self._book, attempt):
                return None  # needs no claim; those that are left go when it is active
            lapse.give_up_lost(self._book, attempt)
            attempt = None
        if attempt is not None and attempt.state not in table.ENDED:
            if attempt.claim is None or self._is_more_promising(best, attempt.claim, attempt):
                self._book.save(self._adopted(attempt, best))
            return None
        replaces = self._store.current_link()
        if (
            replaces is not None
            and self._store.serving() is not None
            and self._book.settings().reprovision == "never"
        ):
            return self._decline(claims, replaces)
        self._book.say("claim", f"claim {short(best.fingerprint)} taken in")
        self._book.save(table.begin(best, self._book.now(), replaces))
        return None

    def took_the_spare(self) -> bool:
        """The endpoint turned the claim away: whether another one, not yet turned away, has its turn now."""
        attempt, claims = self._book.record.attempt, self._store.claims()
        if attempt is None or attempt.claim is None or not claims or attempt.state in _WITHOUT_CLAIM:
            return False
        best = self._most_promising(claims, attempt)
        if best.fingerprint in (attempt.claim.fingerprint, *attempt.refused, *self._tried):
            return False
        self._tried.add(best.fingerprint)  # once a pass: whatever the list says, a pass has an end
        self._book.say("claim", f"claim {short(best.fingerprint)} is tried instead")
        self._book.save(self._adopted(attempt, best))
        return True

    def destroy_all(self, why: Code | None = None) -> None:
        """`why`: None where another claim was used in their place.

        Each is told once: one that a crash left here is not told again, one that has come again is.
        """
        came = {claim.fingerprint for claim in self._intake.kept}
        attempt = self._book.record.attempt
        mine = attempt.claim.fingerprint if attempt and attempt.claim else ""
        stuck: OSError | None = None
        for fingerprint in self._store.claim_names():
            told = fingerprint not in came and self._book.is_told(fingerprint, "not-needed")
            if fingerprint != mine and not told:
                self._book.ended([fingerprint], "not-needed", why)
            try:
                self._store.destroy_claim(fingerprint)
            except OSError as error:
                stuck = error  # the others go all the same
        if stuck is not None:
            raise stuck

    def _is_dead(self, claim: Claim) -> bool:
        return self._book.time_for(ClaimRecord.of(claim)) >= claim.certificate.not_after

    def _most_promising(self, claims: list[Claim], attempt: Attempt | None) -> ClaimRecord:
        refused = () if attempt is None or attempt.state in table.ENDED else attempt.refused
        return max(map(ClaimRecord.of, claims), key=lambda claim: self._preference(claim, refused))

    def _is_more_promising(self, one: ClaimRecord, other: ClaimRecord, attempt: Attempt) -> bool:
        return self._preference(one, attempt.refused) > self._preference(other, attempt.refused)

    def _preference(self, claim: ClaimRecord, refused: tuple[str, ...]) -> tuple[bool, bool, int, datetime]:
        return table.preference(claim, refused, self._book.time_for(claim))

    def _adopted(self, attempt: Attempt, claim: ClaimRecord) -> Attempt:
        if attempt.state is State.BLOCKED:
            attempt = blocked.unblock(self._book, attempt)
        adopted = table.advance(attempt, Event.CLAIM_ADOPTED, self._book.now())
        if claim.fingerprint in adopted.refused:
            return replace(adopted, claim=claim)  # its turn again, no sooner than the retry table says
        return replace(adopted, claim=claim, failures=0, retry_at=None, problem=None)

    def _decline(self, claims: list[Claim], identity: str) -> Problem:
        self.destroy_all(Code.CLAIM_NOT_NEEDED)
        return problem(Code.CLAIM_NOT_NEEDED, claim=short(claims[0].fingerprint), identity=short(identity))
