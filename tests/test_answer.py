"""The texts of the result directory: what a technician reads, word by word."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta

import pytest

from claimd import answer
from claimd import attempt as table
from claimd.answer import Scene
from claimd.attempt import Attempt, ClaimRecord, Event, Outcome, Record, State
from claimd.errors import Code, problem
from claimd.ledger import Taken
from claimd.model import short, spoken
from claimd.words import COLUMNS
from material import NOW, claim

CLAIM = claim()
TAKEN = Taken(
    CLAIM.fingerprint, CLAIM.certificate.public_key_id, ("claim.json",), spoken(CLAIM.certificate.not_after)
)
IDENTITY = {"certificate_id": "c0" * 32, "thing_name": "gateway-7"}


def scene(attempt: Attempt | None = None, *history: Outcome, held: bool = True) -> Scene:
    record = Record(attempt, history)
    return Scene(NOW, record, None, frozenset({CLAIM.fingerprint} if held else ()), "/var/spool/claimd/drop")


def claimed() -> Attempt:
    return table.begin(ClaimRecord.of(CLAIM), NOW, None)


def outcome(result: str, code: Code | None = None) -> Outcome:
    active = result == "active"
    return Outcome(
        NOW, CLAIM.fingerprint, result, "c0" * 32 if active else None, "gateway-7" if active else None, code
    )


def one_text(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


class TestAClaim:
    def test_taken_in(self) -> None:
        said = answer.of_claim(TAKEN, scene(claimed()))
        assert said == [
            "TAKEN IN",
            "",
            "The claim is being exchanged for the permanent identity.",
            "claim lives:   until 2026-03-01 12:05:00 UTC",
            "",
            f"claim:         {CLAIM.fingerprint[:12]} (claim.json)",
        ]

    def test_waiting_says_for_what_and_until_when(self) -> None:
        trouble = problem(Code.DNS_FAILED, endpoint="x-ats.iot.eu-west-1.amazonaws.com")
        waiting = replace(claimed(), problem=trouble, retry_at=NOW + timedelta(seconds=5), failures=1)
        said = answer.of_claim(TAKEN, scene(waiting))
        assert said[0] == "WAITING"
        assert "The name x-ats.iot.eu-west-1.amazonaws.com can't be resolved." in said
        assert "next try:      2026-03-01 12:00:05 UTC" in said
        assert "claim lives:   until 2026-03-01 12:05:00 UTC" in said

    def test_blocked(self) -> None:
        trouble = problem(Code.TEMPLATE_NOT_FOUND, template="T", detail="no such template")
        blocked = replace(table.advance(claimed(), Event.BLOCKED, NOW), problem=trouble)
        assert answer.of_claim(TAKEN, scene(blocked))[0] == "BLOCKED"

    def test_done(self) -> None:
        said = answer.of_claim(TAKEN, scene(None, outcome("active"), held=False))
        assert said[:3] == ["DONE", "", "The device has its permanent identity."]
        assert "thing:         gateway-7" in said and f"certificate:   {'c0' * 32}" in said

    def test_expired(self) -> None:
        said = answer.of_claim(TAKEN, scene(None, outcome("failed", Code.CLAIM_EXPIRED), held=False))
        assert said[0] == "REFUSED"
        assert "expired at 2026-03-01 12:05:00 UTC" in one_text(said)
        assert "make a new claim" in one_text(said)
        assert "The claim and its key are destroyed." in said

    def test_not_needed(self) -> None:
        before = replace(
            scene(None, outcome("not-needed", Code.CLAIM_NOT_NEEDED), held=False), identity=IDENTITY
        )
        said = one_text(answer.of_claim(TAKEN, before))
        assert said.startswith("REFUSED") and "this device already has its identity (c0c0c0c0c0c0)" in said

    def test_a_spare_is_told_that_another_one_was_used(self) -> None:
        after = replace(scene(None, outcome("not-needed"), held=False), identity=IDENTITY)
        said = answer.of_claim(TAKEN, after)
        assert said[0] == "DONE" and "reprovision" not in one_text(said)
        assert "Another claim was used; this one was not needed and was destroyed." in one_text(said)

    def test_in_reserve(self) -> None:
        other = replace(claimed(), claim=ClaimRecord("ab" * 32, NOW, NOW + timedelta(minutes=9)))
        assert "kept in reserve" in one_text(answer.of_claim(TAKEN, scene(other)))

    def test_kept_before_the_attempt_begins(self) -> None:
        assert answer.of_claim(TAKEN, scene())[0] == "TAKEN IN"

    def test_destroyed_because_another_one_was_used(self) -> None:
        assert "Another claim was used" in one_text(answer.of_claim(TAKEN, scene(held=False)))

    def test_destroyed_while_another_one_is_at_work(self) -> None:
        other = replace(claimed(), claim=ClaimRecord("ab" * 32, NOW, NOW + timedelta(minutes=9)))
        assert "Another claim was used" in one_text(answer.of_claim(TAKEN, scene(other, held=False)))
        failed = outcome("failed", Code.CLAIM_EXPIRED)
        said = answer.of_claim(TAKEN, scene(other, failed, held=False))
        assert said[0] == "REFUSED" and "expired at 2026-03-01 12:05:00 UTC" in one_text(said)

    def test_run_out_with_what_stood_in_its_way(self) -> None:
        found = problem(
            Code.CLAIM_RAN_OUT,
            claim=short(CLAIM.fingerprint),
            not_after=spoken(CLAIM.certificate.not_after),
            reason="the name x can't be resolved",
            trouble="dns-failed",
        )
        lost = replace(claimed(), state=State.FAILED, claim=None, problem=found)
        ended = outcome("failed", Code.CLAIM_RAN_OUT)
        said = answer.of_claim(TAKEN, scene(lost, ended, held=False))
        assert said[0] == "REFUSED" and "before AWS had confirmed the registration: the name x" in one_text(
            said
        )
        another = answer.of_claim(TAKEN, scene(replace(lost, problem=None), ended, held=False))
        assert "expired at 2026-03-01 12:05:00 UTC" in one_text(another), "what it was is forgotten by now"

    def test_the_newest_end_counts(self) -> None:
        ends = (outcome("failed", Code.CLAIM_EXPIRED), outcome("active"))
        assert answer.of_claim(TAKEN, scene(None, *ends, held=False))[0] == "DONE"

    def test_once_it_is_registered_no_claim_lives_or_dies(self) -> None:
        trouble = problem(Code.DNS_FAILED, endpoint="x")
        registered = table.advance(
            table.advance(claimed(), Event.KEYS_REQUEST_RECORDED, NOW), Event.KEYS_STAGED, NOW
        )
        for event in (Event.REGISTRATION_RECORDED, Event.REGISTRATION_PROVED):
            registered = table.advance(registered, event, NOW)
        said = answer.of_claim(TAKEN, scene(replace(registered, problem=trouble)))
        assert said[0] == "WAITING"
        assert "The device is registered: no claim is needed any more." in said
        assert not [line for line in said if line.startswith("claim lives")]

    def test_none_helps_a_device_that_is_registered_and_not_let_in(self) -> None:
        found = problem(Code.IDENTITY_REFUSED, client_id="x", certificate_id="c0", detail="CONNACK 0x87")
        other = ClaimRecord("ab" * 32, NOW - timedelta(hours=2), NOW - timedelta(hours=1))
        registered = replace(claimed(), claim=other, state=State.REGISTERED, problem=found)
        for attempt in (registered, replace(registered, claim=None)):
            kept = scene(attempt)
            ended = scene(attempt, outcome("not-needed"), held=False)
            for each in (kept, replace(ended, identity=IDENTITY)):
                said = answer.of_claim(TAKEN, each)
                assert said[0] == "WAITING" and "update-certificate" in one_text(said)
                assert "AWS refuses its new identity" in one_text(said)
                assert "This claim can't help: it is destroyed unused." in said
        soon = answer.of_claim(TAKEN, scene(replace(registered, problem=None)))
        assert soon[0] == "TAKEN IN" and "Another claim has registered this device" in one_text(soon)
        before = replace(registered, started_at=NOW + timedelta(hours=1))
        assert answer.of_claim(TAKEN, scene(before, outcome("not-needed"), held=False))[0] == "DONE"

    def test_refused_for_what_is_told_without_its_particulars(self) -> None:
        """The outcome keeps the code alone; the template's name is the configured one."""
        ended = scene(None, outcome("failed", Code.TEMPLATE_NOT_FOUND), held=False)
        said = one_text(answer.of_claim(TAKEN, replace(ended, template="Fleet")))
        assert said.startswith("REFUSED") and "code: template-not-found" in said and "Fleet" in said
        assert one_text(answer.of_claim(TAKEN, ended)).startswith("REFUSED")
        nobody_knows = one_text(answer.of_claim(TAKEN, scene(None, outcome("failed"), held=False)))
        assert "code: internal-error" in nobody_knows

    def test_names_that_a_terminal_would_obey(self) -> None:
        taken = replace(TAKEN, names=("a\x1b[31m", "b.pem", "c.pem", "d.pem"))
        said = answer.of_claim(taken, scene(claimed()))
        assert said[-1].endswith("b.pem and 2 more)") and all(line.isprintable() for line in said)


class TestAnIdentity:
    def test_it_is_there(self) -> None:
        assert answer.of_identity(IDENTITY) == [
            "DONE",
            "",
            "This device has its permanent identity.",
            "",
            "thing:         gateway-7",
            f"certificate:   {'c0' * 32}",
        ]

    def test_one_whose_thing_is_not_known(self) -> None:
        assert "thing:         unknown" in answer.of_identity({**IDENTITY, "thing_name": None})

    def test_a_claim_would_be_wasted(self) -> None:
        said = answer.of_no_need(IDENTITY)
        assert said[0] == "DONE" and "a claim that is dropped now would be destroyed unused." in one_text(
            said
        )


def test_the_last_line_says_when() -> None:
    assert answer.text(["READY", "", "grün"], NOW) == "READY\n\ngrün\n\n2026-03-01 12:00:00 UTC\n".encode()
    assert answer.text(["\udcff"], NOW).startswith(b"?\n"), "a name that is no UTF-8 stops nothing"


class TestFiles:
    def test_half_a_claim_waits(self) -> None:
        said = answer.of_file(problem(Code.CLAIM_KEY_MISSING, file="cert.pem"), 590)
        assert said[0] == "WAITING"
        assert "The certificate is here (cert.pem), its private key is missing." in said
        assert said[-1] == "If it stays as it is, the file is removed in about 10 minutes."

    def test_a_photo_is_refused(self) -> None:
        said = answer.of_file(problem(Code.CLAIM_NOT_RECOGNISED, file="a.jpg", detail="it is a picture"), 20)
        assert said[0] == "REFUSED" and said[-1].endswith("about 1 minute.")

    def test_what_was_destroyed_is_said(self) -> None:
        found = problem(Code.CLAIM_CERTIFICATE_MISSING, file="key.pem")
        said = answer.of_destroyed(found, aside=False)
        assert said[0] == "REFUSED" and said[-1] == "The file was destroyed: no copy of it is on this device."
        assert ".claimd-aside-" in one_text(answer.of_destroyed(found, aside=True))

    def test_of_what_others_could_read_it_is_not_said_that_nobody_has_it(self) -> None:
        said = answer.of_destroyed(problem(Code.DROP_ENTRY_EXPOSED, file="claim.json"), aside=False)
        assert said[0] == "REFUSED" and said[-1] == "It was destroyed."

    def test_a_copy_that_came_back(self) -> None:
        found = problem(Code.CLAIM_ALREADY_TAKEN_IN, claim="c0ffee", file="key.pem")
        said = answer.of_destroyed(found, aside=False)
        assert said[0] == "NOTED" and "already taken in; sed and chmod are not needed" in one_text(said)


class TestReadiness:
    def test_ready(self) -> None:
        said = answer.of_readiness(None, "/var/spool/claimd/drop")
        assert said[0] == "READY" and "/var/spool/claimd/drop" in one_text(said)

    def test_not_ready_says_why(self) -> None:
        said = answer.of_readiness(problem(Code.NOT_CONFIGURED, missing="endpoint", file="x"), "/drop")
        assert said[:3] == ["NOT READY", "", "Not configured: set endpoint."]

    def test_without_the_service_nobody_looks_again(self) -> None:
        start = "claimd --root /somewhere run"
        said = answer.of_readiness(None, "/drop", start)
        assert said[:3] == ["NOT READY", "", "The service is not running: nobody takes in what is dropped."]
        assert f"what to do: start it: {start}" in one_text(said) and "looks again" not in one_text(said)
        both = answer.of_readiness(problem(Code.NOT_CONFIGURED, missing="endpoint", file="x"), "/drop", start)
        assert both[2] == "Not configured: set endpoint." and both[4:] != []
        assert both[-len(said) + 2 :] == said[2:] and "looks again" not in one_text(both)


@pytest.mark.parametrize("code", list(Code))
def test_every_failure_fits_the_screen_and_ends_with_its_code(code: Code) -> None:
    found = problem(code, **dict.fromkeys(("file", "detail", "path"), "\x1b[31m\n" + "x" * 40))
    lines = answer.of_file(found, None)
    assert lines[-1].endswith(code.value)
    longest = max((len(command) for command in found.commands), default=0) + 16
    for line in lines:
        assert line.isprintable() and len(line) <= max(COLUMNS, longest, 80)


class TestNames:
    @pytest.mark.parametrize("name", ["claim.json", "Bildschirmfoto von früh 1.png", "key (2).pem"])
    def test_a_plain_name_stays(self, name: str) -> None:
        assert answer.file_name(name) == name + ".txt"

    @pytest.mark.parametrize(
        "name",
        [
            "a\nb",
            "\x1b[31m",
            "..",
            ".",
            ".hidden",
            os.fsdecode(b"\xff\xfe"),
            "n" * 255,
            "ü" * 127,
            "latest",
            "-",
        ],
    )
    def test_any_other_gets_a_number(self, name: str) -> None:
        made = answer.file_name(name)
        assert made.isprintable() and "/" not in made and not made.startswith(".") and made != answer.LATEST
        assert len(made.encode()) <= 255

    def test_two_names_that_look_alike_have_two_answers(self) -> None:
        assert answer.file_name("a\n") != answer.file_name("a\t")

    def test_nobody_can_choose_the_name_of_another_file_s_answer(self) -> None:
        for name in ("my file!", "n" * 255, "latest"):
            taken = answer.file_name(name).removesuffix(".txt")
            assert answer.file_name(taken) != answer.file_name(name)
            again = answer.file_name(taken).removesuffix(".txt")
            assert answer.file_name(again) != answer.file_name(taken)

    def test_a_folder_has_one(self) -> None:
        assert answer.file_name("claims/key.pem") == "claims.txt"
