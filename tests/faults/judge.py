"""Whether a state directory keeps the promises, judged from outside claimd.

Invariant: the judge reads files and the cloud's own record of what it activated; of claimd it uses the
parsers of certificates and keys alone. What it can't explain is a finding, never a pass.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from claimd.pem import parse_certificate, parse_private_key
from faults.cloud import Known
from material import Pair

IDENTITY_FILES = ("private.key", "certificate.pem", "root-ca.pem", "identity.json", "identity.env")
_ID = re.compile(r"[0-9a-f]{64}\Z")
_ONLY_OWNER = 0o077
_OTHERS = 0o027  # the group of the identity may read


class Kind(str, Enum):
    LOST = "lost"  # AWS activated a certificate whose key is not on disk
    HALF = "half"  # `current` or the record is there and not whole
    LEAKED = "leaked"  # a key or a token that others can read, or that outlives its use
    WASTED = "wasted"  # the claim is gone and there is no identity
    STUCK = "stuck"  # it does not go on without a person


@dataclass(frozen=True)
class Finding:
    kind: Kind
    what: str

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.what}"


def judge(root: Path, known: Known, claims: Iterable[Pair] = ()) -> list[Finding]:
    """What must hold at every moment, also in the middle of a pass. `claims`: what was dropped and lives."""
    state = root / "var/lib/claimd"
    found = [*_lost(state, known), *_half(state, known), *_leaked(state, known)]
    used = _used(state)
    found += _wasted(root, [each for each in claims if each.claim.fingerprint not in used])
    return found


def judge_the_end(root: Path, known: Known, claims: Iterable[Pair]) -> list[Finding]:
    """What must hold once the device says that it is provisioned."""
    state = root / "var/lib/claimd"
    found = judge(root, known)
    current = state / "identity/current"
    if not current.is_symlink():
        found.append(Finding(Kind.STUCK, "no identity serves"))
    kept = {_digest(p.key) for p in claims}
    for path, data in _files(root):
        if _digest_of_key(data) in kept:
            found.append(Finding(Kind.LEAKED, f"a used claim's key is left in {path.relative_to(root)}"))
        if path.name.startswith(".tmp-") and not path.is_relative_to(root / "run"):
            found.append(Finding(Kind.LEAKED, f"a remainder is left: {path.relative_to(root)}"))
    if (current / "ownership-token").exists():
        found.append(Finding(Kind.LEAKED, "the ownership token outlives the registration"))
    return found


def _lost(state: Path, known: Known) -> list[Finding]:
    found = []
    for certificate in sorted(known.activated):
        place = state / "identity" / certificate
        if _public_key(place / "private.key", of_key=True) != known.issued[certificate]:
            found.append(Finding(Kind.LOST, f"the key of {certificate[:12]} is not on disk"))
        elif _public_key(place / "certificate.pem", of_key=False) != known.issued[certificate]:
            found.append(Finding(Kind.LOST, f"the certificate {certificate[:12]} is not on disk"))
    return found


def _half(state: Path, known: Known) -> list[Finding]:
    found = []
    current = state / "identity/current"
    if current.is_symlink():
        target = os.readlink(current)
        damage = whole(state / "identity" / target)
        if not _ID.match(target) or damage:
            found.append(Finding(Kind.HALF, f"`current` is not whole: {damage}"))
        elif target not in known.activated:
            found.append(Finding(Kind.HALF, "`current` is an identity that AWS does not know"))
    elif current.exists():
        found.append(Finding(Kind.HALF, "`current` is no link"))
    record = state / "attempt.json"
    if record.exists():
        try:
            json.loads(record.read_bytes())
        except ValueError:
            found.append(Finding(Kind.HALF, "attempt.json is damaged"))
    return found


def whole(identity: Path) -> str | None:
    """None, or what is wrong with it, by its manifest."""
    try:
        expected = json.loads((identity / "manifest.json").read_bytes())["sha256"]
        for name in IDENTITY_FILES:
            if hashlib.sha256((identity / name).read_bytes()).hexdigest() != expected[name]:
                return f"{name} is not what the manifest says"
    except FileNotFoundError as error:
        return f"{os.path.basename(str(error.filename))} is missing"
    except (ValueError, KeyError):
        return "the manifest is damaged"
    if _public_key(identity / "private.key", of_key=True) is None:
        return "the key is no key"
    return None


def _leaked(state: Path, known: Known) -> list[Finding]:
    found = []
    tokens = {token.encode("ascii") for token in known.tokens}
    for path, data in _files(state):
        is_secret = b"PRIVATE KEY" in data or data in tokens or path.name == "private.key"
        if not is_secret:
            continue
        # A copy in progress has the name of no identity yet; its directory tells whose it is.
        in_identity = path.is_relative_to(state / "identity") and data not in tokens
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode & (_OTHERS if in_identity else _ONLY_OWNER):
            found.append(Finding(Kind.LEAKED, f"{path.relative_to(state)} has mode {mode:04o}"))
    return found


def _registered(state: Path, known: Known) -> bool:
    return any((state / "identity" / name / "manifest.json").exists() for name in known.activated)


def _used(state: Path) -> set[str]:
    """Claims that have become an identity, or that one made needless, as the record says."""
    try:
        record = json.loads((state / "attempt.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return set()
    used = {o["claim"] for o in record["history"] if o["result"] in ("active", "not-needed")}
    attempt = record["attempt"]
    if attempt and attempt["claim"] and attempt["state"] in ("registered", "active"):
        used.add(attempt["claim"]["fingerprint"])
    return used


def _wasted(root: Path, claims: Iterable[Pair]) -> list[Finding]:
    wanted = {_digest(p.key) for p in claims}
    places = (root / "var/spool/claimd/drop", root / "var/lib/claimd/claims")
    for place in places:
        for _, data in _files(place):
            wanted.discard(_digest_of_key(data))
    return [Finding(Kind.WASTED, "a live claim is nowhere")] if wanted else []


def _digest(key_pem: str) -> str:
    return hashlib.sha256("".join(key_pem.split()).encode("ascii")).hexdigest()


def _digest_of_key(data: bytes) -> str:
    """Of the first key in a file, whatever its line ends are; of nothing when there is none."""
    data = data.replace(b"\\n", b"\n")  # as JSON writes it
    match = re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", data, re.S)
    return "" if match is None else _digest(match.group().decode("ascii", "replace"))


def _files(place: Path) -> Iterable[tuple[Path, bytes]]:
    for directory, _, names in os.walk(place):
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()


def _public_key(path: Path, *, of_key: bool) -> str | None:
    try:
        return _parsed(path.read_bytes(), of_key)
    except OSError:
        return None


@functools.lru_cache(maxsize=4096)
def _parsed(data: bytes, of_key: bool) -> str | None:
    try:
        if of_key:
            return parse_private_key(data).public_key_id
        return parse_certificate(data.decode("ascii")).public_key_id
    except ValueError:
        return None


def counts(findings: Iterable[Finding]) -> Mapping[Kind, int]:
    """How many points had a finding of each kind is counted by the caller; here: of one point, 0 or 1."""
    kinds = {finding.kind for finding in findings}
    return {kind: int(kind in kinds) for kind in Kind}
