"""One pass of `ensure`: drive the open attempt as far as it goes.

    settle -> bury -> cure -> adopt -> next_step <-> do it -> outcome

Invariant: nothing here is lost by an interruption; see `steps` for the order of intents and facts, and
`recovery` for what a crash may leave.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from . import attempt as table
from . import blocked, failure, generations, inspection
from .attempt import Attempt, Record, State, Step
from .candidates import Candidates
from .connect import InterruptedPassError
from .errors import ClaimdError, Code, Exit, Kind, Problem, problem
from .intake import Intake
from .logbook import Logbook
from .recovery import settle
from .steps import Steps
from .store import Store
from .world import STALE_LOOK_SECONDS, Result, World

log = logging.getLogger(__name__)

CLOCK_LOOK_SECONDS = 10.0
_NOTHING_TO_DO = frozenset({Step.WAIT_FOR_CLAIM, Step.WAIT_FOR_CLOCK, Step.WAIT_FOR_CURE, Step.FINISH})


class Pass:
    """One pass. Single use."""

    def __init__(self, world: World, intake: Intake) -> None:
        self._world = world
        self._intake = intake
        self._book = Logbook(world)
        self._candidates = Candidates(self._book, intake)
        self._steps = Steps(self._book, self._candidates)
        self._disk_failed = False

    def run(self) -> Result:
        """Raises ClaimdError and OSError for trouble with the record or the disk, having lost nothing."""
        self._book.record = settle(self._book.store, self._book.store.load_record(), self._book.now())
        try:
            self._candidates.bury_expired()
            blocked.cure(self._book)
            trouble = self._candidates.adopt()
            if trouble is None:
                trouble = self._drive()
        except InterruptedPassError:
            trouble = problem(Code.INTERRUPTED, step="working")
        finally:
            self._steps.hang_up()
        return self._result(trouble)

    def _drive(self) -> Problem | None:
        """Step by step until there is nothing to do now. Returns what stands in the way, if anything."""
        while self._book.record.attempt is not None:
            attempt = self._book.record.attempt
            step = table.next_step(attempt, self._book.time_for(attempt.claim), probed=self._steps.probed)
            if step in _NOTHING_TO_DO:
                return self._wait(step, attempt)
            if self._too_early(step, attempt):
                return attempt.problem
            self._book.check_stop()
            try:
                self._steps.take(step, attempt)
            except ClaimdError as error:
                self._steps.hang_up()
                failure.failed(self._book, error.problem)
                if error.problem.code not in failure.TURNED_AWAY or not self._candidates.took_the_spare():
                    return error.problem
            except OSError as error:
                self._steps.hang_up()
                self._disk_failed = True
                return failure.disk_trouble(self._book, error)
        return None

    def _wait(self, step: Step, attempt: Attempt) -> Problem | None:
        if step is Step.WAIT_FOR_CLOCK and attempt.claim is not None:
            claim, now = attempt.claim, self._book.now()
            late = inspection.not_yet_valid(claim.fingerprint, claim.not_before, now)
            if _says_the_same(attempt.problem, late):
                return attempt.problem
            self._book.save(replace(attempt, problem=late))
            return late
        return attempt.problem

    def _too_early(self, step: Step, attempt: Attempt) -> bool:
        if step in (Step.LOSE_CLAIM, Step.LET_TOKEN_LAPSE) or self._world.by_hand:
            return False
        if attempt.config_sha256 not in (None, self._book.sha256()):
            return False
        return table.due_in_seconds(attempt, self._book.now()) > 0

    def _result(self, trouble: Problem | None) -> Result:
        attempt = self._book.record.attempt
        after = self._after_seconds(attempt)
        code = Exit.NOTHING_TO_DO
        if self._steps.activated:
            code = Exit.OK
        elif trouble is not None:
            code = exit_of(trouble, self._book.record, self._book.store)
        elif attempt is not None and attempt.state is State.FAILED and self._intake.kept:
            code = Exit.CLAIM_UNUSABLE
        if self._intake.expired and trouble is None and not self._steps.activated:
            trouble = inspection.expired(self._intake.expired[0], self._book.now())
            code = Exit.CLAIM_UNUSABLE
        return Result(code, trouble, after, self._book.record)

    def _after_seconds(self, attempt: Attempt | None) -> float | None:
        if attempt is None or attempt.state in table.ENDED:
            return self._remove_old()
        if not self._book.is_kept:
            return STALE_LOOK_SECONDS
        now = self._book.now()
        waits = []
        due = table.due_in_seconds(attempt, now)
        if due > 0:
            waits.append(due)
        elif _comes_back(attempt) and not self._waits_for_a_configuration(attempt):
            waits.append(0.0)
        # A registered identity needs its claim no more, and the claim's end wakes nobody.
        if attempt.claim is not None and attempt.state is not State.REGISTERED:
            now = self._book.time_for(attempt.claim)
            if now < attempt.claim.not_before:
                waits.append(min((attempt.claim.not_before - now).total_seconds(), CLOCK_LOOK_SECONDS))
            left = (attempt.claim.not_after - now).total_seconds()
            # A past end that the disk did not take now is tried again when that is due, not at once.
            if left > 0 or not self._disk_failed:
                waits.append(max(left, 0.0))
        return min(waits) if waits else None

    def _waits_for_a_configuration(self, attempt: Attempt) -> bool:
        """Blocked, and meanwhile there is none that could be used: its correction is a hint of its own."""
        return attempt.state is State.BLOCKED and not self._book.sha256()

    def _remove_old(self) -> float | None:
        """Earlier identities that were kept long enough. None of it is worth a failed pass."""
        try:
            book, retention = self._book, self._book.settings().retention
            return generations.remove_old(
                book.store, book.record, retention, book.now(), self._world.elapsed()
            )
        except ClaimdError:
            return None  # a broken configuration says nothing about how long to keep
        except OSError as error:
            log.warning("an earlier identity can't be removed: %s", error.strerror)
            return None


def _comes_back(attempt: Attempt) -> bool:
    """Whether there is something to try as soon as it is due."""
    if attempt.state is State.REGISTERED:
        return True
    if attempt.state is State.BLOCKED and blocked.is_looked_at_again(attempt):
        return True
    if attempt.claim is None:
        return attempt.state is State.REGISTERING and attempt.ambiguous
    return attempt.problem is not None and attempt.problem.kind is Kind.RETRY


def _says_the_same(before: Problem | None, late: Problem) -> bool:
    """A clock that only runs on is told anew every ten minutes: it may be years until somebody sets it, and
    each telling wears the flash."""
    if before is None or before.code is not late.code:
        return False
    shown = len("2026-03-01 12:0")
    told = {**before.fields, "now": before.fields.get("now", "")[:shown]}
    return told == {**late.fields, "now": late.fields["now"][:shown]}


def exit_of(trouble: Problem, record: Record, store: Store) -> Exit:
    """Asked for a new identity and still on the old one has its own code."""
    attempt = record.attempt
    if attempt is None or not attempt.replaces or attempt.state is State.ACTIVE:
        return trouble.exit
    try:
        serves = store.serving() is not None
    except OSError:
        serves = False
    return Exit.OLD_IDENTITY_SERVES if serves else trouble.exit
