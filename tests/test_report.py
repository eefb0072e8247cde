"""The status document: which state a device is in, and which of several problems is shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from claimd import attempt as table
from claimd.attempt import Attempt, ClaimRecord, Event, Record, State
from claimd.errors import Code, Problem, problem
from claimd.report import (
    MAX_NAMED,
    MAX_STATUS_BYTES,
    Advice,
    decoded,
    encoded,
    merged,
    problem_lines,
    remaining,
    remaining_of,
    status_document,
)
from material import NOW, claim
from states import IDENTITY

CLAIM = ClaimRecord.of(claim())
KEY_MISSING = problem(Code.CLAIM_KEY_MISSING, file="a.pem")
GARBAGE = problem(Code.CLAIM_NOT_RECOGNISED, file="b.jpg", detail="a picture")
OFFLINE = problem(Code.DNS_FAILED, endpoint="e.example")
FOREIGN = problem(Code.STATE_OF_ANOTHER_DEVICE, path="/var/lib/claimd")
REFUSED = problem(Code.IDENTITY_REFUSED, client_id="c", certificate_id="c0", detail="d")


def claimed(found: Problem | None = None) -> Attempt:
    return replace(table.begin(CLAIM, NOW, None), problem=found)


def document(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "now": NOW,
        "record": Record(),
        "identity": None,
        "drop": {},
        "claims": (),
        "trouble": None,
        "drop_directory": "/drop",
        **changes,
    }
    return status_document(**given)


@pytest.mark.parametrize(
    ("changes", "state", "code"),
    [
        ({}, "unprovisioned", None),
        ({"identity": IDENTITY}, "provisioned", None),
        ({"identity": IDENTITY, "trouble": OFFLINE}, "provisioned", "dns-failed"),
        ({"record": Record(claimed())}, "provisioning", None),
        ({"record": Record(claimed(OFFLINE))}, "waiting", "dns-failed"),
        ({"record": Record(claimed(REFUSED))}, "refused", "identity-refused"),
        (
            {"record": Record(replace(table.advance(claimed(), Event.BLOCKED, NOW), problem=OFFLINE))},
            "blocked",
            "dns-failed",
        ),
        ({"drop": {"a.pem": KEY_MISSING}}, "waiting", "claim-key-missing"),
        ({"drop": {"b.jpg": GARBAGE}}, "refused", "claim-not-recognised"),
        ({"drop": {"a.jpg": GARBAGE, "b.pem": KEY_MISSING}}, "waiting", "claim-key-missing"),
        ({"trouble": OFFLINE, "drop": {"a.pem": KEY_MISSING}}, "refused", "dns-failed"),
        ({"identity": IDENTITY, "trouble": FOREIGN}, "blocked", "state-of-another-device"),
    ],
)
def test_the_state_and_the_problem_that_is_shown(changes: Any, state: str, code: str | None) -> None:
    found = document(**changes)
    assert found["state"] == state
    assert (found["problem"] and found["problem"]["code"]) == code


def test_a_hostile_name_is_shown_and_not_obeyed() -> None:
    found = document(drop={"\x1b[2J.pem": KEY_MISSING})
    assert found["drop"][0]["file"] == "\\x1b[2J.pem"


def test_a_claim_in_reserve_is_a_note() -> None:
    later = NOW + timedelta(minutes=5)
    claims = ((CLAIM.fingerprint, CLAIM.not_after), ("5e" * 32, later))
    found = document(record=Record(claimed()), claims=claims)
    assert [note["code"] for note in found["notes"]] == ["claim-superseded"]
    assert document(claims=claims)["notes"] == []


class TestFloods:
    def test_some_are_named_and_the_others_counted(self) -> None:
        junk = {f"{number:03}.jpg": GARBAGE for number in range(100)}
        found = document(drop={**junk, "z.pem": KEY_MISSING})
        named = [one["file"] for one in found["drop"]]
        assert named == [*list(junk)[: MAX_NAMED - 1], "z.pem"], "what may become a claim is named"
        assert (found["drop_more"], found["state"]) == (101 - MAX_NAMED, "waiting")
        assert document(drop=dict(list(junk.items())[:MAX_NAMED]))["drop_more"] == 0

    def test_those_that_are_not_named_are_no_reason_to_say_that_nothing_lies_there(self) -> None:
        worker = document(drop={f"{number:03}.jpg": GARBAGE for number in range(MAX_NAMED + 1)})
        found = merged(worker, None, drop_directory="/drop", dropped=["032.jpg"])
        assert (found["drop"], found["drop_more"], found["state"]) == ([], 1, "refused")
        none = merged(worker, None, drop_directory="/drop", dropped=[])
        assert (none["drop"], none["drop_more"], none["state"]) == ([], 0, "unprovisioned")

    def test_the_longest_words_fit_many_times(self) -> None:
        long = "\U0001f600" * 300
        all_long = dict.fromkeys(("file", "detail", "path", "other", "claim"), long)
        worst = max((problem(code, **all_long) for code in Code), key=lambda p: len(str(p.to_json())))
        found = document(drop={f"{number}{long}": worst for number in range(2048)})
        assert len(encoded(found)) < MAX_STATUS_BYTES / 3
        assert decoded(encoded(found)) == found

    def test_what_grows_by_its_indentation_is_written_without(self) -> None:
        deep: Any = ["x"] * 65536
        for _ in range(64):
            deep = [deep]
        nested = document(identity={**IDENTITY, "device_configuration": {"a": deep}})
        text = encoded(nested)
        assert len(text) <= MAX_STATUS_BYTES and text.count(b"\n") == 1
        assert decoded(text) == nested
        assert encoded(document(identity=IDENTITY)).startswith(b'{\n "schema": 1,\n')

    def test_nothing_is_written_that_nobody_could_read(self) -> None:
        with pytest.raises(ValueError, match="more than 4194304 bytes"):
            encoded(document(drop_directory="/" * MAX_STATUS_BYTES))

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (b" " * (MAX_STATUS_BYTES + 1), "it has more than 4194304 bytes"),
            (b"{", "it is no JSON document"),
            (b"\xff", "it is no JSON document"),
            (b"[]", "it is not what this version of claimd writes"),
            (b'{"schema": 2}', "it is not what this version of claimd writes"),
        ],
    )
    def test_what_can_t_be_read_says_why(self, data: bytes, why: str) -> None:
        with pytest.raises(ValueError, match=why):
            decoded(data)


class TestMerged:
    def merged(self, worker: Any, watcher: Any, dropped: Any = None) -> dict[str, Any]:
        return merged(worker, watcher, drop_directory="/drop", dropped=dropped)

    def test_nothing_ran_yet(self) -> None:
        found = self.merged(None, None)
        assert (found["state"], found["service"], found["dropped"]) == ("unprovisioned", None, None)

    def test_what_was_taken_away_is_no_complaint(self) -> None:
        worker = document(drop={"a.pem": KEY_MISSING, "folder/b.jpg": GARBAGE})
        found = self.merged(worker, None, ["folder"])
        assert [one["file"] for one in found["drop"]] == ["folder/b.jpg"]
        assert found["dropped"] == ["folder"]
        assert found["problem"] == GARBAGE.to_json() and found["state"] == "refused"
        none = self.merged(worker, None, [])
        assert (none["drop"], none["problem"], none["state"]) == ([], None, "unprovisioned")

    def test_a_provisioned_device_stays_one_whatever_lay_there(self) -> None:
        found = self.merged(document(identity=IDENTITY, drop={"b.jpg": GARBAGE}), None, [])
        assert (found["problem"], found["state"]) == (None, "provisioned")

    def test_taking_files_away_ends_no_attempt(self) -> None:
        worker = document(record=Record(claimed(OFFLINE)), drop={"a.pem": KEY_MISSING})
        found = self.merged(worker, None, [])
        assert (found["problem"], found["state"]) == (OFFLINE.to_json(), "waiting")

    @pytest.mark.parametrize(
        ("watcher", "code"),
        [
            ({}, None),
            ({"configuration": {"problem": OFFLINE.to_json()}}, "dns-failed"),
            ({"configuration": {"problem": None}, "last_pass": None}, None),
            ({"last_pass": {"outcome": "pass-crashed", "problem": OFFLINE.to_json()}}, "dns-failed"),
            (
                {"last_pass": {"outcome": "state-directory-missing", "problem": OFFLINE.to_json()}},
                "dns-failed",
            ),
            ({"last_pass": {"outcome": "disk-read-only", "problem": OFFLINE.to_json()}}, "dns-failed"),
            ({"last_pass": {"outcome": "idle", "problem": OFFLINE.to_json()}}, None),
        ],
    )
    def test_the_service_s_problem_shows_else(self, watcher: Any, code: str | None) -> None:
        found = self.merged(document(), watcher)["problem"]
        assert (found and found["code"]) == code

    def test_the_worker_s_own_comes_first(self) -> None:
        watcher = {"configuration": {"problem": GARBAGE.to_json()}}
        found = self.merged(document(trouble=OFFLINE), watcher)["problem"]
        assert found["code"] == "dns-failed"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(300, "5:00 left"), (61, "1:01 left"), (0.5, "expired"), (0, "expired"), (-9, "expired")],
)
def test_how_long_a_claim_lives(seconds: float, said: str) -> None:
    assert remaining(NOW + timedelta(seconds=seconds), NOW, None) == said
    assert remaining(NOW + timedelta(seconds=seconds), NOW, NOW) == said


def test_by_a_clock_that_is_behind_nobody_knows_how_long_a_claim_lives() -> None:
    end, hour = NOW + timedelta(minutes=5), timedelta(hours=1)
    assert remaining(end, NOW - hour, NOW) == "not valid yet"
    claim = {"not_before": NOW.isoformat(), "not_after": end.isoformat()}
    assert remaining_of(claim, NOW - hour) == "not valid yet"
    assert remaining_of(claim, NOW) == "5:00 left"
    assert remaining_of({"not_after": end.isoformat()}, NOW - hour) == "65:00 left", "an older worker's"


@pytest.mark.parametrize(
    ("advice", "said"),
    [
        (Advice("c", "give both:", "claimd put a b"), "  what to do:   give both: claimd put a b"),
        (Advice("c", "send it again"), "  what to do:   send it again"),
    ],
)
def test_a_failure_with_other_advice_keeps_its_code(advice: Advice, said: str) -> None:
    lines = problem_lines(OFFLINE, advice)
    assert lines[0] == problem_lines(OFFLINE)[0] and lines[-1] == problem_lines(OFFLINE)[-1]
    assert lines[1:-1] == ["  likely cause: c", said]


def test_a_failure_on_a_terminal() -> None:
    lines = problem_lines(OFFLINE)
    assert lines[0] == "claimd: the name e.example can't be resolved"
    labels = [line.split(":")[0].strip() for line in lines if line.startswith("  ") and ":" in line]
    assert labels[0] == "likely cause" and labels[-1] == "code"
    assert lines[-1].endswith("dns-failed (claimd explain dns-failed)")


def test_a_spare_is_in_reserve_only_while_a_claim_can_help() -> None:
    spare = (("ab" * 32, NOW + timedelta(minutes=1)),)
    for state, notes in ((State.CLAIMED, 1), (State.REGISTERED, 0), (State.ACTIVE, 0)):
        said = document(record=Record(replace(claimed(), state=state)), claims=spare)
        assert len(said["notes"]) == notes
