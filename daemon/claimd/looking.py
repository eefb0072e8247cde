"""Looking at the drop directory until it holds still: the first part of a pass.

Invariant: what a look took in is on disk before the next look; a pass that is interrupted here has lost
nothing but time.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .attempt import ENDED
from .connect import InterruptedPassError
from .durable import disk_problem
from .errors import ClaimdError
from .intake import Reception

if TYPE_CHECKING:
    from collections.abc import Callable

    from .drop import Drop
    from .intake import Intake, Rules
    from .ledger import Ledger, Moment
    from .store import Store

log = logging.getLogger(__name__)

# Between two looks at a copy in progress: short against a person's patience, long against a stat call.
LOOK_SECONDS = 0.05
# The end of looking, however slowly pieces trickle in: the watcher starts the next pass.
LONGEST_LOOK_SECONDS = 30.0


@dataclass(frozen=True)
class Patience:
    """`grace_seconds`: how long to look at something unfinished in which nothing moves."""

    grace_seconds: float
    stopping: Callable[[], bool]


def look(
    drop: Drop, store: Store, rules: Rules, patience: Patience, clock: Callable[[], Moment]
) -> tuple[Intake, Ledger]:
    """Look until nothing is unfinished, or nothing has moved for the grace. `clock`: of the device.

    Raises InterruptedPassError, ClaimdError, OSError.
    """
    before = store.load_ledger()
    reception = Reception(drop, store, rules, before)
    # A pass with work waits for nobody: the rest of another claim, or somebody who keeps writing.
    lingers = not _has_work(store)
    try:
        return _until_still(reception, patience, clock, lingers=lingers), reception.ledger
    finally:
        if reception.ledger != before:
            _save(store, reception.ledger)


def _has_work(store: Store) -> bool:
    try:
        attempt = store.load_record().attempt
    except (ClaimdError, OSError):
        return False  # the pass itself says what is wrong with it
    return (attempt is not None and attempt.state not in ENDED) or bool(store.claims())


def _until_still(
    reception: Reception, patience: Patience, clock: Callable[[], Moment], *, lingers: bool
) -> Intake:
    started = moved = time.monotonic()
    intake = reception.look(clock())
    kept, dead, destroyed, aside = [*intake.kept], [*intake.expired], {**intake.destroyed}, {*intake.aside}
    while lingers and intake.incomplete and not kept:
        if patience.stopping():
            raise InterruptedPassError
        moment = time.monotonic()
        if moment - moved > patience.grace_seconds or moment - started > LONGEST_LOOK_SECONDS:
            break
        time.sleep(LOOK_SECONDS)
        before = intake.signature
        intake = reception.look(clock())
        kept += intake.kept
        dead += intake.expired
        destroyed.update(intake.destroyed)
        aside |= intake.aside
        if intake.signature != before:
            moved = time.monotonic()
    return replace(intake, kept=tuple(kept), expired=tuple(dead), destroyed=destroyed, aside=frozenset(aside))


def elapsed() -> float:
    """Since the machine started, sleep included; what the ledger counts in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _save(store: Store, ledger: Ledger) -> None:
    try:
        store.save_ledger(ledger)
    except OSError as error:
        # /run is full: graces begin anew with the next pass.
        log.warning("%s", disk_problem(error, store.layout.ledger_file).happened)
