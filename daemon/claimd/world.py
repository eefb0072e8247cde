"""What a pass acts on, and what comes of it: store, configuration, network, time and chance come in here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from .attempt import Record
from .errors import Exit, Problem
from .fleet import Transport
from .generations import Retention
from .model import Target

if TYPE_CHECKING:
    from .store import Store


# The next pass after trouble with the disk or the drop directory.
STALE_LOOK_SECONDS = 30.0


@dataclass(frozen=True)
class Settings:
    """What a pass needs of the configuration, read afresh for it."""

    reprovision: str
    on_refusal: str
    retention: Retention
    connect_seconds: float
    answer_seconds: float
    sha256: str


# What settings.py has, for an identity that has to be proved while the configuration is broken.
DEFAULTS = Settings(
    reprovision="never",
    on_refusal="activate",
    retention=Retention(generations=2, days=30.0),
    connect_seconds=10.0,
    answer_seconds=10.0,
    sha256="",
)


class Configuration(Protocol):
    """The configuration as a pass uses it; every method raises ClaimdError with what to correct."""

    def settings(self) -> Settings: ...

    def target(self, fingerprint: str, ca_sha256: str) -> Target:
        """Endpoint, template and resolved parameters, to be frozen for one attempt."""

    def roots(self) -> bytes:
        """PEM of the root certificates; never empty."""


@dataclass(frozen=True)
class World:
    """What a pass acts on. Time and chance come in here."""

    store: Store
    configuration: Configuration
    transport: Callable[[float], Transport]  # by connect_seconds; called once the network is needed
    now: Callable[[], datetime]
    elapsed: Callable[[], float]  # seconds since the machine started, sleep included
    random: Callable[[], float]
    stopping: Callable[[], bool]
    progress: Callable[[str, str], None]  # stage, sentence
    publish: Callable[[Record, Problem | None], None]  # writes status.json
    by_hand: bool = False
    sleep: Callable[[float], None] = time.sleep
    time_for: Callable[[str, datetime], datetime] | None = None  # fingerprint, notAfter; None: `now`


@dataclass(frozen=True)
class Result:
    """How a pass ended. `after_seconds`: come back then; None: on a hint only. `notes`: nothing failed,
    and a person should know all the same."""

    exit: Exit
    problem: Problem | None
    after_seconds: float | None
    record: Record
    notes: tuple[Problem, ...] = ()
