"""The record of the attempt as text: what is written is read again, also by the claimd before and after."""

from __future__ import annotations

import json
from dataclasses import replace

from claimd import attempt as table
from claimd.attempt import ClaimRecord, Record
from claimd.record import decode, encode
from material import NOW, claim


def record() -> Record:
    begun = table.begin(ClaimRecord.of(claim()), NOW, None)
    return Record(replace(table.turned_away(begun), failures=1))


def test_it_comes_back_as_it_was() -> None:
    before = record()
    assert before.attempt is not None and before.attempt.refused
    assert decode(encode(before)) == before


def test_a_record_from_before_claims_could_be_turned_away() -> None:
    body = json.loads(encode(record()))
    del body["attempt"]["refused"]
    found = decode(json.dumps(body).encode())
    assert found.attempt is not None and found.attempt.refused == ()
