"""What certificates and keys some texts hold, whether they are a claim, and how long it lives. Pure.

Invariant: no sentence holds a key or a part of one; what is unusable here is unusable for the daemon, and is
said with the same words.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from .errors import Code, Problem, printable, problem
from .model import short, spoken
from .pem import pair_up, recognise
from .report import remaining
from .words import labelled, wrapped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .model import Claim
    from .pem import Material, Pairing

# AWS's claims live five minutes; the sandbox's and a private endpoint's may live longer. A device's own
# certificate lives years.
LONGEST_CLAIM_LIFE = timedelta(days=1)
# No clock that is right can be before this program was made.
EARLIEST = datetime(2025, 1, 1, tzinfo=timezone.utc)
_WIDTH = 15
_LAST_MOMENT = datetime.max.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class Inspection:
    """`usable`: the claims that the daemon would take. `problems`: by file, what is wrong with the others."""

    materials: Mapping[str, Material]
    claims: tuple[tuple[Claim, tuple[str, ...]], ...]
    usable: tuple[Claim, ...]
    problems: Mapping[str, Problem]

    @property
    def refusal(self) -> Problem | None:
        """Why there is no claim to be used; None when there is one."""
        if self.usable:
            return None
        return next(iter(self.problems.values()), None)


def inspect(files: Mapping[str, bytes], now: datetime) -> Inspection:
    materials = {name: recognise(name, data) for name, data in files.items()}
    pairing = pair_up(materials)
    claims = tuple((claim, tuple(sorted(names))) for claim, names in pairing.claims)
    usable, problems = [], {}
    for claim, names in claims:
        found = of_claim(claim, names[0], now)
        # A clock that is behind is the daemon's to wait for.
        if found is None or found.code is Code.CLAIM_NOT_YET_VALID:
            usable.append(claim)
        if found is not None:
            problems[names[0]] = found
    in_claims = {name for _, names in claims for name in names}
    for name, found in unpaired(materials, pairing, in_claims).items():
        problems.setdefault(name, found)
    return Inspection(materials, claims, tuple(usable), problems)


def of_claim(claim: Claim, name: str, now: datetime) -> Problem | None:
    """What is wrong with a claim whose two halves are here."""
    certificate = claim.certificate
    if certificate.not_after - certificate.not_before > LONGEST_CLAIM_LIFE:
        return problem(Code.CLAIM_IS_PERMANENT, file=name, not_after=spoken(certificate.not_after))
    if now >= certificate.not_after:
        return expired(claim, now)
    if now < certificate.not_before:
        return not_yet_valid(claim.fingerprint, certificate.not_before, now)
    return None


def not_yet_valid(fingerprint: str, not_before: datetime, now: datetime) -> Problem:
    # Two minutes on: notBefore lies about that far before the claim was made. A certificate may name the
    # last minute that there is, and nothing comes after that.
    right = not_before + min(timedelta(minutes=2), _LAST_MOMENT - not_before)
    return problem(
        Code.CLAIM_NOT_YET_VALID,
        claim=short(fingerprint),
        not_before=spoken(not_before),
        now=spoken(now),
        date=right.strftime("%Y-%m-%d %H:%M:%S"),
    )


def expired(claim: Claim, now: datetime) -> Problem:
    return problem(
        Code.CLAIM_EXPIRED,
        claim=short(claim.fingerprint),
        not_after=spoken(claim.certificate.not_after),
        now=spoken(now),
    )


def unpaired(materials: Mapping[str, Material], pairing: Pairing, taken: set[str]) -> dict[str, Problem]:
    """What to say of files that are no part of a claim, by name."""
    found: dict[str, Problem] = {}
    for name, material in materials.items():
        if name not in taken and material.problems:
            found[name] = material.problems[0]
    lonely_keys = [name for _, name in pairing.lonely_keys if name not in taken]
    lonely_certificates = [name for _, name in pairing.lonely_certificates if name not in taken]
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


def lines(found: Inspection, now: datetime) -> list[str]:
    """`claimd inspect` for a person."""
    said: list[str] = []
    for name, material in found.materials.items():
        said += _file(name, material)
    for claim, names in found.claims:
        said += _claim(claim, names, now)
    for each in found.problems.values():
        said += ["", *wrapped(each.sentence)]
        said += labelled("likely cause", each.cause, width=_WIDTH)
        said += labelled("what to do", each.remedy, width=_WIDTH, commands=each.commands)
        said += labelled("code", each.code.value, width=_WIDTH)
    return said


def document(found: Inspection, now: datetime) -> dict[str, object]:
    """`claimd inspect --json`."""
    return {
        "schema": 1,
        "usable": bool(found.usable),
        "files": [
            {
                "file": printable(name),
                "certificates": [each.fingerprint for each in material.certificates],
                "keys": [each.algorithm for each in material.keys],
            }
            for name, material in found.materials.items()
        ],
        "claims": [
            {
                "fingerprint": claim.fingerprint,
                "files": [printable(name) for name in names],
                "not_before": claim.certificate.not_before.isoformat(),
                "not_after": claim.certificate.not_after.isoformat(),
                "remaining_seconds": max(0, int((claim.certificate.not_after - now).total_seconds())),
                "usable": claim in found.usable,
            }
            for claim, names in found.claims
        ],
        "problems": [
            {"file": printable(name), "problem": each.to_json()} for name, each in found.problems.items()
        ],
    }


def _file(name: str, material: Material) -> list[str]:
    holds = [
        f"certificate {short(each.fingerprint)} ({printable(each.subject)[:40]})"
        for each in material.certificates
    ]
    holds += [f"private key ({each.algorithm})" for each in material.keys]
    return wrapped(f"{printable(name)}: {', '.join(holds) or 'no certificate and no private key'}", rest="  ")


def _claim(claim: Claim, names: tuple[str, ...], now: datetime) -> list[str]:
    certificate = claim.certificate
    life = remaining(certificate.not_after, now, certificate.not_before)
    if now < certificate.not_before:
        clock = "this device's clock is behind: the claim was made later than now"
    elif now >= certificate.not_after:
        clock = "right, or ahead"
    else:
        clock = "looks right: the claim was made in the last minutes"
    said = ["", *labelled("claim", claim.fingerprint, width=_WIDTH)]
    said += labelled("pair", f"certificate and key belong together ({claim.key.algorithm})", width=_WIDTH)
    span = f"{spoken(certificate.not_before)} to {spoken(certificate.not_after)}"
    said += labelled("valid", f"{span}, {life}", width=_WIDTH)
    return [*said, *labelled("clock", f"{spoken(now)}, {clock}", width=_WIDTH)]
