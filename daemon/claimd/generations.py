"""Earlier identities: named as long as they lie here, kept for a while, then removed.

A generation is a whole identity that another one replaced: its certificate id stands in the
`replaces_certificate_id` of a whole identity. Invariant: nothing else is ever removed here, neither
what `current` names, nor what the attempt works on or replaces before it is active, nor a staged key.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from .attempt import ENDED, State
from .errors import Code, problem
from .inspection import EARLIEST
from .model import short

if TYPE_CHECKING:
    from .attempt import Record
    from .errors import Problem
    from .store import Store

log = logging.getLogger(__name__)

# Whoever resolved `current` just before the switch still opens the old files.
LEAST_AGE = timedelta(hours=1)


@dataclass(frozen=True)
class Retention:
    """How many earlier identities are kept, and for how long."""

    generations: int
    days: float


@dataclass(frozen=True)
class Earlier:
    """An identity that another one replaced."""

    certificate_id: str
    thing_name: str | None
    replaced_at: datetime


def earlier(store: Store, record: Record) -> list[Earlier]:
    """The generations that lie here, the latest first. Raises OSError."""
    documents = {}
    for name in store.staged():
        try:
            document = store.document(name) if store.is_complete(name) else None
        except OSError as error:
            log.warning("an identity can't be read: %s: %s", short(name), error.strerror)
            continue  # one bad sector keeps neither the others from their end nor the status from being told
        if document is not None:
            documents[name] = document
    attempt = record.attempt
    in_use = {store.current_link()}
    if attempt is not None and attempt.state not in ENDED:
        in_use |= {attempt.certificate_id, attempt.replaces}
    # From the switch on. It may have come long after the registration: when somebody approved it at last.
    switched_at = {o.certificate_id: o.at for o in record.history if o.result == "active"}
    replaced_at: dict[str, datetime] = {}
    for name, d in documents.items():
        if name in in_use and name != store.current_link():
            continue
        before = str(d.get("replaces_certificate_id"))
        at = switched_at.get(name) or datetime.fromisoformat(str(d["registered_at"]))
        replaced_at[before] = max(at, replaced_at.get(before, at))
    found = [
        Earlier(name, d["thing_name"] if isinstance(d.get("thing_name"), str) else None, replaced_at[name])
        for name, d in documents.items()
        if name in replaced_at and name not in in_use
    ]
    return sorted(found, key=lambda e: e.replaced_at, reverse=True)


def remove_old(
    store: Store, record: Record, retention: Retention, now: datetime, uptime: float
) -> float | None:
    """Remove what is kept long enough; in how many seconds the next one is due. Raises OSError.

    `uptime`: seconds since the machine started. A clock without a battery may say anything until the network
    has set it, and nothing is removed on its word.
    """
    due = None
    for number, generation in enumerate(earlier(store, record)):
        if generation.replaced_at < EARLIEST:
            continue  # by a clock that was wrong: nobody knows how long it is kept already
        age = now - generation.replaced_at
        longest = timedelta(days=retention.days) if number < retention.generations else LEAST_AGE
        left = max((max(longest, LEAST_AGE) - age).total_seconds(), LEAST_AGE.total_seconds() - uptime)
        if left <= 0:
            log.info("an earlier identity was kept long enough and is removed: %s", generation.certificate_id)
            store.remove_generation(generation.certificate_id)
        else:
            due = left if due is None else min(due, left)
    return due


def notes(store: Store, record: Record) -> list[Problem]:
    """What a person should know about identities beside the one that serves. Raises OSError."""
    found = []
    attempt = record.attempt
    replaces = None if attempt is None or attempt.state is State.ACTIVE else attempt.replaces
    current = None if replaces is None else store.serving()
    if replaces is not None and current is not None and current.certificate_id == replaces:
        found.append(problem(Code.OLD_IDENTITY_SERVES, certificate=short(replaces)))
    for generation in earlier(store, record):
        found.append(
            problem(
                Code.OLD_CERTIFICATE_ACTIVE,
                certificate_id=generation.certificate_id,
                thing_name=generation.thing_name or "THING",
            )
        )
    return found
