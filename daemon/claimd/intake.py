"""Dropped files become kept claims.

Invariant: a dropped file is removed only after the claim in it is kept on disk, or after it
was found to hold nothing but an unusable claim. Everything else is left where it lies and named.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from .errors import Code, Problem, problem
from .model import short, spoken
from .pem import Material, pair_up, recognise

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from .drop import Drop
    from .model import Claim
    from .store import Store

log = logging.getLogger(__name__)

# AWS's claims live five minutes; the sandbox's and a private endpoint's may live longer. A device's own
# certificate lives years.
LONGEST_CLAIM_LIFE = timedelta(days=1)


@dataclass(frozen=True)
class Intake:
    """What one look at the drop directory brought.

    `problems`: by file name, for what was left there. `incomplete`: something there may still
    become a claim when more of it arrives. `expired`: claims that were destroyed, being dead.
    `signature`: what lies there; unchanged means that nothing arrived since.
    """

    kept: tuple[Claim, ...]
    expired: tuple[Claim, ...]
    problems: Mapping[str, Problem]
    incomplete: bool
    signature: frozenset[object]


_MAY_STILL_ARRIVE = frozenset(
    {
        Code.CLAIM_STILL_ARRIVING,
        Code.CLAIM_KEY_MISSING,
        Code.CLAIM_CERTIFICATE_MISSING,
        Code.CLAIM_KEY_MISMATCH,
    }
)


def take_in(drop: Drop, store: Store, now: datetime) -> Intake:
    """One look: keep what is whole, name what is not. Raises ClaimdError and OSError, having lost nothing."""
    entries = {entry.name: entry for entry in drop.scan()}
    materials = {n: recognise(n, e.data) for n, e in entries.items() if e.problem is None}
    pairing = pair_up(materials)
    kept, expired = [], []
    problems = {name: e.problem for name, e in entries.items() if e.problem is not None}
    taken: set[str] = set()
    for claim, names in pairing.claims:
        certificate = claim.certificate
        if certificate.not_after - certificate.not_before > LONGEST_CLAIM_LIFE:
            permanent = _permanent(claim, sorted(names)[0])
            problems.update(dict.fromkeys(names, permanent))
            continue
        if now >= certificate.not_after:
            expired.append(claim)
        else:
            store.secure_claim(claim)
            kept.append(claim)
            log.info("claim %s taken in", short(claim.fingerprint))
        # A file may hold several claims: it goes when all of them are safe.
        taken.update(names)
    for name in taken - problems.keys():
        drop.remove(entries[name])
    problems.update(_unpaired(materials, pairing.lonely_certificates, pairing.lonely_keys, taken))
    incomplete = any(p.code in _MAY_STILL_ARRIVE for p in problems.values())
    signature = frozenset((name, entry.stamp) for name, entry in entries.items() if name not in taken)
    return Intake(tuple(kept), tuple(expired), problems, incomplete, signature)


def _unpaired(
    materials: Mapping[str, Material],
    certificates: tuple[tuple[object, str], ...],
    keys: tuple[tuple[object, str], ...],
    taken: set[str],
) -> dict[str, Problem]:
    found: dict[str, Problem] = {}
    for name, material in materials.items():
        if name not in taken and material.problems:
            found[name] = material.problems[0]
    lonely_keys = [name for _, name in keys if name not in taken]
    lonely_certificates = [name for _, name in certificates if name not in taken]
    for name in lonely_certificates:
        if name in found:
            continue
        # With a problem about a key elsewhere, that problem says more than "missing".
        if lonely_keys:
            found[name] = problem(Code.CLAIM_KEY_MISMATCH, file=name, key_file=lonely_keys[0])
        else:
            found[name] = problem(Code.CLAIM_KEY_MISSING, file=name)
    for name in lonely_keys:
        if name in found:
            continue
        if lonely_certificates:
            found[name] = problem(Code.CLAIM_KEY_MISMATCH, file=lonely_certificates[0], key_file=name)
        else:
            found[name] = problem(Code.CLAIM_CERTIFICATE_MISSING, file=name)
    return found


def _permanent(claim: Claim, name: str) -> Problem:
    not_after = spoken(claim.certificate.not_after)
    return problem(Code.CLAIM_IS_PERMANENT, file=name, not_after=not_after)


def expired_problem(claim: Claim, now: datetime) -> Problem:
    return problem(
        Code.CLAIM_EXPIRED,
        claim=short(claim.fingerprint),
        not_after=spoken(claim.certificate.not_after),
        now=spoken(now),
    )
