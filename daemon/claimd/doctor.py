"""`claimd doctor`: every check of this device, in the order in which one rests on another.

Invariant: it never uses a claim and changes nothing; state-write alone writes, a file that it removes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import doctor_config, doctor_disk, doctor_host, doctor_network
from .inquiry import Answer, Check, examine
from .patient import Patient

if TYPE_CHECKING:
    from collections.abc import Collection

    from .model import Layout

CHECKS: tuple[Check[Patient], ...] = (
    *doctor_config.CHECKS,
    *doctor_network.CHECKS,
    *doctor_disk.CHECKS,
    *doctor_host.CHECKS,
)
IDS = tuple(check.id for check in CHECKS)


def diagnose(
    layout: Layout, config_file: str | None, *, only: Collection[str] = (), skip: Collection[str] = ()
) -> list[Answer]:
    return examine(CHECKS, Patient(layout, config_file), only=only, skip=skip)
