"""What a pass knows and writes down: the record as it is on disk, and the time and settings it goes by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from . import attempt as table
from .attempt import Attempt, ClaimRecord, Outcome, Record
from .connect import InterruptedPassError
from .errors import ClaimdError, Code
from .world import DEFAULTS, Settings, World


class Logbook:
    """Invariant: a change is on disk before it is told to anybody.

    `record`: what attempt.json holds; after a failed write, what it would hold (`failure.disk_trouble`):
    then `is_kept` is false.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.store = world.store
        self.record = Record()
        self.is_kept = True

    def now(self) -> datetime:
        return self.world.now()

    def time_for(self, claim: ClaimRecord | None) -> datetime:
        """By which a claim, and the token that was got with it, live or are dead."""
        if claim is None or self.world.time_for is None:
            return self.now()
        return self.world.time_for(claim.fingerprint, claim.not_after)

    def settings(self) -> Settings:
        return self.world.configuration.settings()

    def settings_or_defaults(self) -> Settings:
        """From REGISTERED on nothing may stand in the way, a broken configuration least of all."""
        try:
            return self.settings()
        except ClaimdError:
            return DEFAULTS

    def sha256(self) -> str:
        """Of the configuration in force; empty: it is broken."""
        try:
            return self.settings().sha256
        except ClaimdError:
            return ""

    def save(self, attempt: Attempt) -> None:
        self.keep(self.record.with_attempt(attempt))

    def keep(self, record: Record) -> None:
        """Persist, then assign, then tell."""
        self.store.save_record(record)
        self.record = record
        self.world.publish(record, None)

    def ended(self, claims: Iterable[str], result: str, code: Code | None) -> None:
        """Written and told once, however many there are."""
        record = self.record
        for claim in claims:
            record = record.with_outcome(Outcome(self.now(), claim, result, None, None, code))
        if record is not self.record:
            self.keep(record)

    def is_told(self, claim: str, result: str) -> bool:
        """What can't be removed is met in every pass, and ends in the history once."""
        return any(o.claim == claim and o.result == result for o in self.record.history)

    def check_stop(self) -> None:
        if self.world.stopping():
            raise InterruptedPassError

    def say(self, stage: str, sentence: str) -> None:
        self.world.progress(stage, sentence)

    def due_again(self, attempt: Attempt) -> Attempt:
        delay = table.delay_seconds(attempt, self.world.random())
        return replace(attempt, retry_at=self.now() + timedelta(seconds=delay))
