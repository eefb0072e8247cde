"""What the journal is told: once, of what is new, and the end of a certificate in time."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from claimd import news
from claimd.errors import Code, problem
from claimd.news import Told

END = datetime(2049, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
ID = "ab" * 32
IDENTITY = {"certificate_id": ID, "thing_name": "gateway-1", "certificate_not_after": END.isoformat()}
LONG_BEFORE = END - timedelta(days=9000)
WHO = {"CLAIMD_CERTIFICATE_ID": ID, "CLAIMD_THING_NAME": "gateway-1"}
SECOND = timedelta(seconds=1)


def days_before(days: float) -> datetime:
    return END - timedelta(days=days)


class TestExpiry:
    @pytest.mark.parametrize(
        ("left", "crossed"),
        [(31, None), (30, 30), (7.1, 30), (7, 7), (1.1, 7), (1, 1), (0.1, 1), (0, 0), (-9, 0)],
    )
    def test_thresholds(self, left: float, crossed: int | None) -> None:
        assert news.threshold(END, days_before(left)) == crossed

    def test_each_threshold_is_warned_of_once(self) -> None:
        told, warned = Told(ID), []
        moment = days_before(40)
        while moment < END + timedelta(days=3):
            entries, told = news.of_identity(IDENTITY, told, moment)
            warned += [(entry.fields["CLAIMD_ERROR_CODE"], entry.level) for entry in entries]
            moment += timedelta(hours=6)
        assert warned == [("identity-expires", logging.WARNING)] * 3 + [("identity-expired", logging.ERROR)]

    def test_a_device_that_was_off_is_warned_once_of_the_nearest(self) -> None:
        entries, told = news.of_identity(IDENTITY, Told(ID), days_before(3))
        assert [entry.fields["MESSAGE_ID"] for entry in entries] == [news.MessageId.EXPIRY_NEAR.value]
        assert told == Told(ID, 7)
        assert news.of_identity(IDENTITY, told, days_before(2)) == ([], told)

    def test_a_clock_that_was_ahead_uses_up_no_warning(self) -> None:
        _, told = news.of_identity(IDENTITY, Told(ID), END + timedelta(days=1))
        entries, told = news.of_identity(IDENTITY, told, LONG_BEFORE)
        assert (entries, told) == ([], Told(ID))
        assert len(news.of_identity(IDENTITY, told, days_before(30))[0]) == 1

    def test_a_new_identity_is_warned_of_anew(self) -> None:
        entries, told = news.of_identity(IDENTITY, Told("cd" * 32, 1), days_before(20))
        assert [entry.fields["MESSAGE_ID"] for entry in entries] == [
            news.MessageId.PROVISIONED.value,
            news.MessageId.EXPIRY_NEAR.value,
        ]
        assert told == Told(ID, 30)

    def test_the_next_look_is_at_the_next_threshold(self) -> None:
        assert news.look_again_seconds(END, LONG_BEFORE) == 7 * 86400
        assert news.look_again_seconds(END, days_before(30) - SECOND) == 1
        assert news.look_again_seconds(END, days_before(30)) == 7 * 86400
        assert news.look_again_seconds(END, days_before(9)) == 2 * 86400
        assert news.look_again_seconds(END, days_before(0.5)) == 43200
        assert news.look_again_seconds(END, END) is None

    def test_whoever_looks_as_told_misses_no_threshold(self) -> None:
        moment, told, warned = days_before(100), Told(ID), 0
        for _ in range(100):
            entries, told = news.of_identity(IDENTITY, told, moment)
            warned += len(entries)
            again = news.look_again_seconds(END, moment)
            if again is None:
                break
            moment += timedelta(seconds=again)
        assert (moment, warned) == (END, 4)

    @pytest.mark.parametrize("now", [LONG_BEFORE, datetime(1970, 1, 1, tzinfo=timezone.utc)])
    def test_a_certificate_may_end_at_any_time_that_a_certificate_can_name(self, now: datetime) -> None:
        # The years 1 to 9999 (RFC 5280, 4.1.2.5.2); there is nothing thirty days before the first.
        first = datetime(1, 1, 1, tzinfo=timezone.utc)
        last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
        assert news.threshold(first, now) == 0
        assert news.look_again_seconds(first, now) is None
        over = news.expiry(first, now)
        assert over is not None
        assert over.code is Code.IDENTITY_EXPIRED
        entries, told = news.of_identity(
            {**IDENTITY, "certificate_not_after": first.isoformat()}, Told(ID), now
        )
        assert [entry.fields["CLAIMD_ERROR_CODE"] for entry in entries] == ["identity-expired"]
        assert told == Told(ID, 0)
        assert (news.threshold(last, now), news.expiry(last, now)) == (None, None)
        assert news.look_again_seconds(last, now) == 7 * 86400

    def test_the_status_says_when(self) -> None:
        assert news.expiry(END, days_before(31)) is None
        near, over = news.expiry(END, days_before(5)), news.expiry(END, END)
        assert near is not None and over is not None
        assert near.happened == "the identity's certificate expires at 2049-12-31 23:59:59 UTC"
        assert (
            over.happened
            == "the identity's certificate has expired at 2049-12-31 23:59:59 UTC: AWS refuses it"
        )
        assert 'set reprovision = "replace"' in near.remedy
        assert "date -u" in over.commands


class TestIdentity:
    def test_a_new_one_is_told_once(self) -> None:
        entries, told = news.of_identity(IDENTITY, Told(), LONG_BEFORE)
        assert [(entry.level, entry.fields) for entry in entries] == [
            (
                news.NOTICE,
                {"MESSAGE_ID": news.MessageId.PROVISIONED.value, "CLAIMD_STAGE": "active", **WHO},
            )
        ]
        assert entries[0].sentence == f"provisioned: gateway-1 has its identity, certificate {ID}"
        assert news.of_identity(IDENTITY, told, LONG_BEFORE) == ([], told)

    def test_one_without_a_thing(self) -> None:
        entries, _ = news.of_identity({**IDENTITY, "thing_name": None}, Told(), LONG_BEFORE)
        assert entries[0].sentence.startswith("provisioned: this device has its identity")
        assert "CLAIMD_THING_NAME" not in entries[0].fields


class TestStages:
    def test_a_stage_says_of_which_identity(self) -> None:
        entry = news.stage("registered", "the device is registered", ID, "gateway-1")
        assert (entry.sentence, entry.level) == ("the device is registered", news.INFO)
        assert entry.fields == {"CLAIMD_STAGE": "registered", **WHO}

    def test_nothing_is_said_of_what_is_not_known_yet(self) -> None:
        assert news.stage("claimed", "a claim is here", None, None).fields == {"CLAIMD_STAGE": "claimed"}


def status(code: Code | None, attempt: Mapping[str, Any] | None = None, **fields: str) -> dict[str, Any]:
    return {"problem": None if code is None else problem(code, **fields).to_json(), "attempt": attempt}


ATTEMPT = {
    "state": "blocked",
    "certificate_id": ID,
    "thing_name": None,
    "next_try_at": "2030-01-01T00:00:00+00:00",
}


class TestTrouble:
    def test_it_is_told_when_it_is_new(self) -> None:
        here = status(Code.TEMPLATE_NOT_FOUND, ATTEMPT, template="T")
        other = status(Code.TEMPLATE_NOT_FOUND, ATTEMPT, template="U")
        for before in (None, {}, status(None), other):
            assert len(news.of_trouble(before, here)) == 1
        assert news.of_trouble(here, here) == []
        assert news.of_trouble(here, status(None)) == []

    @pytest.mark.parametrize(
        ("code", "message_id", "level"),
        [
            (Code.TEMPLATE_NOT_FOUND, news.MessageId.BLOCKED, news.ERROR),
            (Code.CLAIM_EXPIRED, news.MessageId.REFUSED, news.ERROR),
            (Code.CLAIM_KEY_MISMATCH, news.MessageId.REFUSED, news.ERROR),
            (Code.CLAIM_NOT_RECOGNISED, None, news.NOTICE),
            (Code.IDENTITY_REFUSED, news.MessageId.REFUSED, news.ERROR),
            (Code.NO_ANSWER, None, news.WARNING),
            (Code.CLAIM_KEY_MISSING, None, news.NOTICE),
        ],
    )
    def test_what_people_match(self, code: Code, message_id: news.MessageId | None, level: int) -> None:
        (entry,) = news.of_trouble(None, status(code))
        assert entry.fields.get("MESSAGE_ID") == (None if message_id is None else message_id.value)
        assert entry.fields["CLAIMD_ERROR_CODE"] == code.value
        assert entry.level == level

    def test_its_line_says_what_to_do_and_when_it_goes_on(self) -> None:
        here = status(Code.TEMPLATE_NOT_FOUND, ATTEMPT, template="T")
        (entry,) = news.of_trouble(None, here)
        assert entry.sentence.startswith(here["problem"]["message"] + "; what to do: ")
        assert entry.sentence.endswith("; next try: 2030-01-01 00:00:00 UTC")
        assert entry.fields["CLAIMD_STAGE"] == "blocked"
        assert entry.fields["CLAIMD_CERTIFICATE_ID"] == ID


class TestMemory:
    @pytest.mark.parametrize("told", [Told(), Told(ID), Told(ID, 30), Told(ID, 0)])
    def test_it_is_read_as_it_was_written(self, told: Told) -> None:
        assert news.decode(news.encode(told)) == told
        assert news.decode(news.encode(replace(told))) == told

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"[]",
            b"{",
            b'{"schema": 2}',
            b'{"schema": 1, "certificate_id": 5}',
            b'{"schema": 1, "threshold_days": 12}',
            b'{"schema": 1, "threshold_days": "30"}',
        ],
    )
    def test_what_was_not_written_by_claimd_is_refused(self, data: bytes) -> None:
        with pytest.raises(ValueError):
            news.decode(data)


def test_message_ids_are_those_that_were_published() -> None:
    assert {one.name: one.value for one in news.MessageId} == {
        "PROVISIONED": "2282588d730549b8b4effdcb3af376ee",
        "REFUSED": "e8a40033ae8549c0a404747c49614296",
        "BLOCKED": "a34bc1f6e09c4792a0e46cb5270c8e1e",
        "EXPIRY_NEAR": "fd6d1dbddc194d9b840c689603068038",
    }
