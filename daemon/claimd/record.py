"""attempt.json as text: the record of the open attempt and the last outcomes.

Invariant: `decode(encode(r)) == r`. A record of a newer schema, or one that is damaged, is
an error that leaves the file alone; it is never read as "no attempt".
Times are ISO 8601 in UTC with microseconds.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any, TypeVar

from .attempt import SCHEMA, Attempt, ClaimRecord, Outcome, Record, State
from .errors import Code, Problem
from .model import Target


class RecordError(Exception):
    """The text is no record that this claimd understands."""


def encode(record: Record) -> bytes:
    body = {
        "schema": SCHEMA,
        "attempt": None if record.attempt is None else _attempt(record.attempt),
        "history": [outcome_to_json(o) for o in record.history],
    }
    return json.dumps(body, indent=1).encode("ascii") + b"\n"


def decode(text: bytes) -> Record:
    """Raises RecordError with the cause."""
    try:
        body = json.loads(text)
        schema = body["schema"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RecordError("it is damaged") from None
    if schema != SCHEMA:
        raise RecordError(f"it has schema {schema!r}, this claimd reads schema {SCHEMA}")
    try:
        attempt = None if body["attempt"] is None else _read_attempt(body["attempt"])
        return Record(attempt, tuple(_read_outcome(o) for o in body["history"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"it is damaged ({type(error).__name__})") from None


def time_to_json(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(timezone.utc).isoformat(timespec="microseconds")


def _read_time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("a time without a zone")
    return at.astimezone(timezone.utc)


_T = TypeVar("_T", bound=str)


def _one_of(value: object, *known: _T) -> _T:
    for each in known:
        if value == each:
            return each
    raise ValueError("none of the known values")


def _read_time_or_none(text: str | None) -> datetime | None:
    return None if text is None else _read_time(text)


def _attempt(a: Attempt) -> dict[str, Any]:
    return {
        "state": a.state.value,
        "started_at": time_to_json(a.started_at),
        "claim": None
        if a.claim is None
        else {
            "fingerprint": a.claim.fingerprint,
            "not_before": time_to_json(a.claim.not_before),
            "not_after": time_to_json(a.claim.not_after),
        },
        "target": None if a.target is None else _target(a.target),
        "certificate_id": a.certificate_id,
        "token_received_at": time_to_json(a.token_received_at),
        "thing_name": a.thing_name,
        "thing_name_known": a.thing_name_known,
        "ambiguous": a.ambiguous,
        "refused": list(a.refused),
        "replaces": a.replaces,
        "resume": None if a.resume is None else a.resume.value,
        "config_sha256": a.config_sha256,
        "failures": a.failures,
        "refusals": a.refusals,
        "retry_at": time_to_json(a.retry_at),
        "problem": None
        if a.problem is None
        else {"code": a.problem.code.value, "fields": dict(a.problem.fields)},
        "stages": [[state.value, time_to_json(at)] for state, at in a.stages],
    }


def _target(t: Target) -> dict[str, Any]:
    return {
        "endpoint": t.endpoint,
        "ports": list(t.ports),
        "template": t.template,
        "parameters": dict(t.parameters),
        "claim_client_id": t.claim_client_id,
        "identity_client_id": t.identity_client_id,
        "ca_sha256": t.ca_sha256,
        "key_source": t.key_source,
        "key_algorithm": t.key_algorithm,
    }


def _read_attempt(body: dict[str, Any]) -> Attempt:
    claim, target, found = body["claim"], body["target"], body["problem"]
    return Attempt(
        state=State(body["state"]),
        started_at=_read_time(body["started_at"]),
        claim=None
        if claim is None
        else ClaimRecord(
            claim["fingerprint"], _read_time(claim["not_before"]), _read_time(claim["not_after"])
        ),
        target=None if target is None else _read_target(target),
        certificate_id=body["certificate_id"],
        token_received_at=_read_time_or_none(body["token_received_at"]),
        thing_name=body["thing_name"],
        thing_name_known=body["thing_name_known"],
        ambiguous=body["ambiguous"],
        refused=tuple(str(each) for each in body.get("refused", ())),  # newer than the schema
        replaces=body["replaces"],
        resume=None if body["resume"] is None else State(body["resume"]),
        config_sha256=body["config_sha256"],
        failures=body["failures"],
        refusals=int(body.get("refusals", 0)),  # newer than the schema
        retry_at=_read_time_or_none(body["retry_at"]),
        problem=None if found is None else problem_from_json(found),
        stages=tuple((State(state), _read_time(at)) for state, at in body["stages"]),
    )


def _read_target(body: dict[str, Any]) -> Target:
    return Target(
        endpoint=body["endpoint"],
        ports=tuple(body["ports"]),
        template=body["template"],
        parameters=tuple(body["parameters"].items()),
        claim_client_id=body["claim_client_id"],
        identity_client_id=body["identity_client_id"],
        ca_sha256=body["ca_sha256"],
        # Of a record from before there was a choice.
        key_source=_one_of(body.get("key_source", "aws"), "aws", "device"),
        key_algorithm=_one_of(body.get("key_algorithm", "P-256"), "P-256", "RSA-2048"),
    )


def problem_from_json(body: dict[str, Any]) -> Problem | None:
    """None: of a code that another version knows. Raises KeyError, TypeError and ValueError."""
    code = _read_code(body["code"])
    return None if code is None else Problem(code, MappingProxyType(dict(body["fields"])))


def _read_code(text: str | None) -> Code | None:
    """A code that another version knows is only words here: no reason not to read the record."""
    try:
        return None if text is None else Code(text)
    except ValueError:
        return None


def outcome_to_json(o: Outcome) -> dict[str, Any]:
    return {
        "at": time_to_json(o.at),
        "claim": o.claim,
        "result": o.result,
        "certificate_id": o.certificate_id,
        "thing_name": o.thing_name,
        "code": None if o.code is None else o.code.value,
    }


def _read_outcome(body: dict[str, Any]) -> Outcome:
    return Outcome(
        at=_read_time(body["at"]),
        claim=body["claim"],
        result=body["result"],
        certificate_id=body["certificate_id"],
        thing_name=body["thing_name"],
        code=_read_code(body["code"]),
    )
