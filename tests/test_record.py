"""The record of the attempt as text: what is written is read again, also by the claimd before and after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from claimd import attempt as table
from claimd.attempt import ClaimRecord, Outcome, Record, State
from claimd.errors import Code, problem
from claimd.model import Target
from claimd.record import RecordError, decode, encode
from material import NOW, claim


def record() -> Record:
    begun = table.begin(ClaimRecord.of(claim()), NOW, None)
    return Record(replace(table.turned_away(begun, ()), failures=1, refusals=1))


def test_it_comes_back_as_it_was() -> None:
    before = record()
    assert before.attempt is not None and before.attempt.refused
    assert decode(encode(before)) == before


def test_a_record_from_before_claims_could_be_turned_away() -> None:
    body = json.loads(encode(record()))
    del body["attempt"]["refused"]
    found = decode(json.dumps(body).encode())
    assert found.attempt is not None and found.attempt.refused == ()


def test_a_record_from_before_a_device_could_make_its_own_key() -> None:
    body = json.loads(encode(full_record()))
    del body["attempt"]["target"]["key_source"], body["attempt"]["target"]["key_algorithm"]
    found = decode(json.dumps(body).encode())
    assert found.attempt is not None and found.attempt.target is not None
    assert (found.attempt.target.key_source, found.attempt.target.key_algorithm) == ("aws", "P-256")


def full_record() -> Record:
    """Every field has a value."""
    begun = table.turned_away(table.begin(ClaimRecord.of(claim()), NOW, "0d" * 32), ())
    target = Target(
        "e.example", (8883, 443), "T", (("a", "1"),), "c", "{thing_name}", "ca" * 32, "device", "RSA-2048"
    )
    attempt = replace(
        begun,
        target=target,
        certificate_id="c0" * 32,
        token_received_at=NOW,
        thing_name="t",
        retry_at=NOW,
        problem=problem(Code.DNS_FAILED, endpoint="e.example"),
        resume=State.REGISTERING,
        config_sha256="ab" * 32,
    )
    outcome = Outcome(NOW, "f0" * 32, "failed", "c0" * 32, "t", Code.CLAIM_EXPIRED)
    return Record(attempt, (outcome, replace(outcome, code=None, result="active")))


def test_every_field_comes_back() -> None:
    before = full_record()
    assert decode(encode(before)) == before


def test_no_record_and_no_history() -> None:
    assert decode(encode(Record())) == Record()


def test_a_code_of_another_version_is_no_reason_not_to_read() -> None:
    text = encode(full_record()).replace(b'"dns-failed"', b'"tomorrow"').replace(b'"claim-expired"', b'"new"')
    found = decode(text)
    assert found.attempt is not None and found.attempt.problem is None
    assert [outcome.code for outcome in found.history] == [None, None]


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff", b"[]", b"7", b"null", b"{}", b"[" * 100_000, b"\x00" * 300]
)
def test_what_is_no_record_is_damaged(text: bytes) -> None:
    with pytest.raises(RecordError, match=r"^it is damaged$"):
        decode(text)


def test_a_schema_of_tomorrow() -> None:
    with pytest.raises(RecordError, match=r"^it has schema 99, this claimd reads schema 1$"):
        decode(b'{"schema": 99}')


def test_a_time_without_a_zone_is_damaged() -> None:
    text = encode(full_record()).replace(b"2026-03-01T12:00:00.000000+00:00", b"2026-03-01T12:00:00")
    with pytest.raises(RecordError, match=r"^it is damaged \(ValueError\)$"):
        decode(text)


def places_in(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON document."""
    if above:
        yield above
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places_in(inner, (*above, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from places_in(inner, (*above, number))


BODY = json.loads(encode(full_record()))
ODD: tuple[Any, ...] = (None, True, 7, -1, 1.5, "", "x", [], {}, [None], {"x": None})


@pytest.mark.parametrize("place", list(places_in(BODY)), ids=lambda place: ".".join(map(str, place)))
def test_anything_in_any_place_is_read_or_damaged(place: tuple[Any, ...]) -> None:
    for value in (*ODD, Ellipsis):
        body = json.loads(json.dumps(BODY))
        around = body
        for step in place[:-1]:
            around = around[step]
        if value is Ellipsis:
            del around[place[-1]]
        else:
            around[place[-1]] = value
        try:
            decode(json.dumps(body).encode())
        except RecordError as error:
            assert str(error).startswith("it ")
