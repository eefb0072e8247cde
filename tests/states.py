"""A device in each state that `claimd status` can show, as documents made by claimd's own functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from claimd import attempt as table
from claimd.attempt import Attempt, ClaimRecord, Event, Outcome, Record
from claimd.errors import Code, Problem, problem
from claimd.model import spoken
from claimd.record import time_to_json
from claimd.report import merged, status_document
from material import NOW

CLAIM = ClaimRecord("0a1b2c3d4e5f" + "60" * 26, NOW - timedelta(minutes=2), NOW + timedelta(minutes=4))
OTHER = ClaimRecord("77" * 32, NOW - timedelta(minutes=2), NOW + timedelta(minutes=2))
CERTIFICATE = "c0ffee" + "12" * 29
ENDPOINT = "a1b2c3d4e5f6g7-ats.iot.eu-central-1.amazonaws.com"
IDENTITY: Mapping[str, Any] = {
    "schema": 1,
    "endpoint": ENDPOINT,
    "port": 8883,
    "template": "TrustedUserProvisioningTemplate",
    "client_id": "pump-4711",
    "thing_name": "pump-4711",
    "thing_name_known": True,
    "certificate_id": CERTIFICATE,
    "certificate_not_after": "2049-12-31T23:59:59.000000+00:00",
    "certificate_sha256": "5a" * 32,
    "device_configuration": {"FallbackUrl": "https://www.example.com/"},
    "registered_at": time_to_json(NOW - timedelta(days=3)),
    "replaces_certificate_id": None,
    "paths": {
        "private_key": f"/var/lib/claimd/identity/{CERTIFICATE}/private.key",
        "certificate": f"/var/lib/claimd/identity/{CERTIFICATE}/certificate.pem",
        "root_ca": f"/var/lib/claimd/identity/{CERTIFICATE}/root-ca.pem",
    },
}
WATCHER: Mapping[str, Any] = {
    "schema": 1,
    "pid": 412,
    "started_at": "2026-03-01T08:00:00+00:00",
    "state": "watching",
    "watch": "inotify",
    "watch_problem": None,
    "configuration": {"ok": True, "problem": None, "sha256": "ab" * 32},
    "worker": None,
    "last_pass": None,
    "next_pass_at": None,
    "passes": 3,
    "crashes_in_row": 0,
}
WORKING = {**WATCHER, "state": "running", "worker": {"pid": 977, "started_at": "2026-03-01T11:59:58+00:00"}}
_LINE = (
    Event.KEYS_REQUEST_RECORDED,
    Event.KEYS_STAGED,
    Event.REGISTRATION_RECORDED,
    Event.REGISTRATION_PROVED,
    Event.IDENTITY_ACTIVATED,
)


def attempt(events: int, *, found: Problem | None = None, **changes: Any) -> Attempt:
    """After so many steps of the straight line, a quarter of a second each."""
    start = NOW - timedelta(seconds=2)
    made = table.begin(CLAIM, start, None)
    for number, event in enumerate(_LINE[:events], 1):
        made = table.advance(made, event, start + number * timedelta(milliseconds=250))
    return replace(made, problem=found, **changes)


def failed(code: Code, **fields: object) -> Problem:
    return problem(code, **fields)


def outcome(
    result: str, code: Code | None = None, *, claim: str = CLAIM.fingerprint, hours: int = 1
) -> Outcome:
    mine = result == "active"
    return Outcome(
        at=NOW - timedelta(hours=hours),
        claim=claim,
        result=result,
        certificate_id=CERTIFICATE if mine else None,
        thing_name="pump-4711" if mine else None,
        code=code,
    )


def document(
    made: Attempt | None = None,
    *,
    identity: Mapping[str, Any] | None = None,
    drop: Mapping[str, Problem] | None = None,
    claims: tuple[tuple[str, datetime], ...] = (),
    trouble: Problem | None = None,
    history: tuple[Outcome, ...] = (),
    watcher: Mapping[str, Any] | None = WATCHER,
    dropped: list[str] | None = None,
) -> dict[str, Any]:
    worker = status_document(
        now=NOW,
        record=Record(made, history),
        identity=identity,
        drop=drop or {},
        claims=claims,
        trouble=trouble,
        drop_directory="/var/spool/claimd/drop",
    )
    names = sorted(drop or {}) if dropped is None else dropped
    return merged(worker, watcher, drop_directory="/var/spool/claimd/drop", dropped=names)


def _fresh(watcher: Mapping[str, Any] | None) -> dict[str, Any]:
    return merged(None, watcher, drop_directory="/var/spool/claimd/drop", dropped=[])


_NOT_ACCEPTED = failed(
    Code.CLAIM_NOT_ACCEPTED,
    endpoint=ENDPOINT,
    region="eu-central-1",
    claim="0a1b2c3d4e5f",
    not_after=spoken(CLAIM.not_after),
    detail="the server hung up on this certificate",
)
_PARAMETERS = failed(
    Code.PARAMETERS_REFUSED,
    detail="400 InvalidParameters: Parameter SerialNumber is missing",
    template="TrustedUserProvisioningTemplate",
    step="registering the device",
)
_IDENTITY_REFUSED = failed(
    Code.IDENTITY_REFUSED, detail="CONNACK 0x87", client_id="pump-4711", certificate_id=CERTIFICATE
)
_SOON = NOW + timedelta(seconds=12)

STATES: Mapping[str, dict[str, Any]] = {
    "fresh": _fresh(WATCHER),
    "fresh-without-service": _fresh(None),
    "not-configured": _fresh(
        {
            **WATCHER,
            "configuration": {
                "ok": False,
                "problem": failed(
                    Code.NOT_CONFIGURED, missing="endpoint and template.name", file="/etc/claimd/claimd.toml"
                ).to_json(),
                "sha256": None,
            },
        }
    ),
    "key-missing": document(drop={"cert.pem": failed(Code.CLAIM_KEY_MISSING, file="cert.pem")}),
    "many-files": document(
        drop={
            f"{n}.jpg": failed(Code.CLAIM_NOT_RECOGNISED, file=f"{n}.jpg", detail="no PEM") for n in range(7)
        }
    ),
    "claimed": document(attempt(0), claims=((CLAIM.fingerprint, CLAIM.not_after),), watcher=WORKING),
    "registering": document(attempt(3), claims=((CLAIM.fingerprint, CLAIM.not_after),), watcher=WORKING),
    "not-accepted": document(
        attempt(0, found=_NOT_ACCEPTED, failures=2, retry_at=_SOON),
        claims=((CLAIM.fingerprint, CLAIM.not_after),),
    ),
    "spare": document(
        attempt(1, found=failed(Code.DNS_FAILED, endpoint=ENDPOINT), failures=1, retry_at=_SOON),
        claims=((CLAIM.fingerprint, CLAIM.not_after), (OTHER.fingerprint, OTHER.not_after)),
    ),
    "blocked": document(
        replace(table.advance(attempt(3), Event.BLOCKED, NOW), problem=_PARAMETERS),
        claims=((CLAIM.fingerprint, CLAIM.not_after),),
    ),
    "claim-lost-key-kept": document(
        replace(
            table.advance(attempt(2), Event.CLAIM_LOST, NOW),
            claim=None,
            problem=failed(Code.CLAIM_EXPIRED, claim="0a1b2c3d4e5f", not_after=spoken(NOW), now=spoken(NOW)),
        ),
        history=(outcome("failed", Code.CLAIM_EXPIRED, hours=0),),
    ),
    "identity-refused": document(attempt(4, found=_IDENTITY_REFUSED, failures=3, retry_at=_SOON)),
    "expired": document(
        trouble=failed(
            Code.CLAIM_EXPIRED,
            claim="0a1b2c3d4e5f",
            not_after=spoken(NOW - timedelta(minutes=3)),
            now=spoken(NOW),
        ),
        history=(outcome("failed", Code.CLAIM_EXPIRED, hours=0),),
    ),
    "provisioned": document(attempt(5), identity=IDENTITY, history=(outcome("active", hours=0),)),
    "provisioned-long-ago": document(
        identity=IDENTITY,
        history=(
            outcome("failed", Code.CLAIM_EXPIRED, claim="11" * 32, hours=80),
            outcome("active", hours=72),
            outcome("not-needed", Code.CLAIM_NOT_NEEDED, claim="22" * 32, hours=5),
        ),
    ),
    "replacing": document(
        attempt(2, replaces=CERTIFICATE),
        identity=IDENTITY,
        claims=((CLAIM.fingerprint, CLAIM.not_after),),
        history=(outcome("active", claim="11" * 32, hours=72),),
        watcher=WORKING,
    ),
    "name-lost": document(identity={**IDENTITY, "thing_name": None, "thing_name_known": False}),
    "disk-full": document(
        trouble=failed(Code.DISK_FULL, path="/var/lib/claimd/attempt.json", directory="/var/lib/claimd")
    ),
    "crashed": _fresh(
        {
            **WATCHER,
            "last_pass": {
                "ended_at": "2026-03-01T11:59:00+00:00",
                "exit": -9,
                "outcome": "pass-crashed",
                "problem": failed(Code.PASS_CRASHED, detail="killed by SIGKILL, without a result").to_json(),
            },
            "next_pass_at": "2026-03-01T12:00:05+00:00",
            "crashes_in_row": 2,
        }
    ),
}
