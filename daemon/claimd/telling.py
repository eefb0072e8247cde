"""Tells the journal what is new, in entries with fields (news.py) that people and programs match.

Invariant: it never raises, and what it could not keep in mind is told twice rather than never. A pass that
a person runs tells its terminal; what the journal should know of it, the service's next pass tells.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from . import news
from .durable import disk_problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from typing import Any

    from .attempt import Record
    from .news import Entry
    from .store import Store

log = logging.getLogger(__name__)


class Journal:
    """One pass's. Made before the pass changes the status, under the lock."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._before = store.load_status()

    def stage(self, name: str, sentence: str, record: Record) -> None:
        if name == "claim":
            return  # the intake has said so when it was stored
        attempt = record.attempt
        certificate_id = attempt.certificate_id if attempt else None
        thing_name = attempt.thing_name if attempt else None
        _tell(news.stage(name, sentence, certificate_id, thing_name))

    def ended(self, status: Mapping[str, Any], now: datetime) -> None:
        """`status`: as the pass has written it at last."""
        for entry in news.of_trouble(self._before, status):
            _tell(entry)
        identity = status["identity"]
        if identity is None:
            return
        before = self._store.load_told()
        entries, told = news.of_identity(identity, before, now)
        for entry in entries:
            _tell(entry)
        if told != before:
            try:
                self._store.save_told(told)
            except OSError as error:
                found = disk_problem(error, self._store.layout.state_directory)
                log.warning("what was told can't be kept and is told again: %s", found.happened)


def _tell(entry: Entry) -> None:
    log.log(entry.level, "%s", entry.sentence, extra={"journal": entry.fields})
