"""Every text at 80 columns, plain ASCII, the same with and without colour; the document by its schema."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import jsonschema
import pytest

from claimd import attempt as table
from claimd.attempt import Event
from claimd.errors import Code, general
from claimd.report import problem_lines
from claimd.screen import changes, explained, explained_list, painted, status_lines, told
from claimd.terminal import Live
from claimd.words import COLUMNS, labelled, wrapped
from material import NOW
from schemas import closed, schema
from snapshots import assert_snapshot
from states import CERTIFICATE, IDENTITY, STATES, WATCHER, attempt, document, failed, outcome

NAMES = sorted(STATES)


class TestTheDocument:
    def test_the_schema_is_one(self) -> None:
        jsonschema.Draft202012Validator.check_schema(schema())

    @pytest.mark.parametrize("name", NAMES)
    def test_every_state_is_described_member_by_member(self, name: str) -> None:
        jsonschema.validate(STATES[name], closed(schema()), cls=jsonschema.Draft202012Validator)

    @pytest.mark.parametrize(
        "change",
        [{"state": "ok"}, {"schema": 2}, {"surprise": 1}, {"updated_at": "yesterday"}, {"history": [{}]}],
    )
    def test_it_can_fail(self, change: dict[str, Any]) -> None:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**STATES["fresh"], **change}, closed(schema()))

    def test_a_newer_one_with_more_members_is_valid(self) -> None:
        jsonschema.validate({**STATES["fresh"], "surprise": 1}, schema())


class TestStatus:
    @pytest.mark.parametrize("name", NAMES)
    def test_as_kept(self, name: str) -> None:
        assert_snapshot(f"status-{name}", status_lines(STATES[name], NOW))

    @pytest.mark.parametrize("name", NAMES)
    def test_one_screen_of_ascii(self, name: str) -> None:
        lines = status_lines(STATES[name], NOW)
        assert len(lines) <= 24
        assert all(line.isascii() and line.isprintable() for line in lines)
        assert_fits(lines, STATES[name]["problem"])

    @pytest.mark.parametrize("name", NAMES)
    def test_readable_without_colour(self, name: str) -> None:
        for line in status_lines(STATES[name], NOW):
            assert re.sub(r"\x1b\[\d*m", "", painted(line)) == line

    def test_a_narrow_terminal(self) -> None:
        lines = status_lines(STATES["not-accepted"], NOW, 50)
        longest = max(map(len, STATES["not-accepted"]["problem"]["commands"]))
        assert all(len(line) <= max(50, 14 + longest + 1) for line in lines)

    @pytest.mark.parametrize(
        ("code", "tried"),
        [
            ("claim-not-needed", False),
            ("claim-already-taken-in", False),
            ("claim-not-recognised", False),
            ("claim-still-arriving", False),
            ("claim-key-missing", False),
            ("config-invalid", False),
            ("not-configured", False),
            ("dns-failed", True),
        ],
    )
    def test_a_pass_that_only_tidies_up_is_no_try(self, code: str, tried: bool) -> None:
        crashed = STATES["crashed"]
        lines = status_lines({**crashed, "problem": {**crashed["problem"], "code": code}}, NOW)
        assert any(line.startswith("next try:") for line in lines) is tried

    def test_a_key_that_was_given_up_is_named(self) -> None:
        given_up = {
            "at": NOW.isoformat(),
            "claim": "",
            "result": "failed",
            "certificate_id": CERTIFICATE,
            "thing_name": None,
            "code": "token-invalid",
        }
        said = "\n".join(status_lines({**STATES["crashed"], "history": [given_up]}, NOW))
        assert f"certificate {CERTIFICATE[:12]} failed" in " ".join(said.split())

    def test_what_may_appear_by_itself_has_a_next_try_though_it_blocks(self) -> None:
        blocked = STATES["blocked"]
        assert not [line for line in status_lines(blocked, NOW) if line.startswith("next try:")]
        looked_for = {
            **blocked,
            "attempt": {**blocked["attempt"], "next_try_at": (NOW + timedelta(seconds=5)).isoformat()},
        }
        assert [line for line in status_lines(looked_for, NOW) if line.startswith("next try:     in 5 s")]

    @pytest.mark.parametrize(
        ("state", "names", "said"),
        [
            ("fresh", [], "start the service: START, then copy a claim into /var/spool/claimd/drop"),
            ("fresh", ["a.json"], "start the service, it takes in what was dropped: START"),
            ("blocked", [], "start the service: START"),
            ("replacing", [], "start the service: START"),
            ("provisioned", ["a.json"], "start the service, it takes in what was dropped: START"),
            ("provisioned", [], None),
        ],
    )
    def test_without_the_service(self, state: str, names: list[str], said: str | None) -> None:
        document = {**STATES[state], "service": None, "dropped": names}
        lines = status_lines(document, NOW, start="START")
        assert "service:      not running (start it: START)" in lines
        shown = " ".join(" ".join(lines).split())
        assert said is None or f"what to do: {said}" in shown
        assert ("start the service" in shown) is (said is not None)
        assert "start the service" not in " ".join(status_lines({**document, "service": WATCHER}, NOW))

    def test_a_claim_counts_down(self) -> None:
        later = status_lines(STATES["registering"], NOW + timedelta(seconds=61))
        assert "claim:        0a1b2c3d4e5f, 2:59 left" in later
        assert "claim:        0a1b2c3d4e5f, expired" in status_lines(
            STATES["registering"], NOW + timedelta(minutes=4)
        )

    def test_a_document_of_an_older_worker(self) -> None:
        found = {"code": "dns-failed", "message": "the name can't be resolved"}
        assert "code:         dns-failed (claimd explain dns-failed)" in status_lines(
            {**STATES["fresh"], "problem": found}, NOW
        )

    def test_the_note_that_asks_for_something_says_what(self) -> None:
        """Elsewhere, and at a time of one's choice: the other notes ask for nothing."""
        asks = failed(Code.OLD_CERTIFICATE_ACTIVE, certificate_id="11" * 32, thing_name="pump-4711")
        serving = {**STATES["provisioned-long-ago"], "notes": [asks.to_json()]}
        lines = status_lines(serving, NOW)
        assert [line for line in lines if line.startswith("what to do:")]
        assert all(any(command in line for line in lines) for command in asks.commands)
        near = failed(Code.IDENTITY_EXPIRES, not_after="2026-03-08 12:00:00 UTC")
        lines = status_lines({**serving, "notes": [near.to_json()]}, NOW)
        assert any(line.startswith("note:") and "expires" in line for line in lines)
        assert not [line for line in lines if line.startswith("what to do:")]

    def test_an_identity_that_has_not_connected_yet(self) -> None:
        waiting = document(attempt(4, certificate_id=CERTIFICATE), identity=IDENTITY)
        text = " ".join(" ".join(status_lines(waiting, NOW)).split())
        assert "the identity is in place, but has not connected yet" in text
        assert "a new one is on its way" not in text

    def test_a_template_that_makes_no_thing(self) -> None:
        nameless = document(identity={**IDENTITY, "thing_name": None})
        assert "thing:        none: the template makes none" in status_lines(nameless, NOW)

    def test_a_directory_that_this_user_can_t_list(self) -> None:
        lines = status_lines({**STATES["fresh"], "dropped": None}, NOW)
        assert "drop:         /var/spool/claimd/drop can't be listed by you" in lines

    def test_an_attempt_that_failed_shows_no_stages(self) -> None:
        over = document(table.advance(attempt(0), Event.CLAIM_LOST, NOW), history=(outcome("failed"),))
        lines = status_lines(over, NOW)
        assert not [line for line in lines if line.startswith(("attempt:", "claim:")) or "[x]" in line]
        took = status_lines(STATES["provisioned"], NOW)
        assert [line for line in took if line.startswith("attempt:      took ")]

    @pytest.mark.parametrize("end", [None, 7, "soon"])
    def test_a_time_that_is_none(self, end: object) -> None:
        """identity.json was written by an older or a newer claimd."""
        odd = document(identity={**IDENTITY, "certificate_not_after": "2049-12-31T23:59:59+00:00"})
        odd = {**odd, "identity": {**odd["identity"], "certificate_not_after": end}}
        assert "valid until:  unknown" in status_lines(odd, NOW)


class TestColour:
    @pytest.mark.parametrize(
        ("line", "coloured"),
        [
            ("ok       dns: found", "\x1b[32mok\x1b[0m       dns: found"),
            ("warning  dns: slow", "\x1b[33mwarning\x1b[0m  dns: slow"),
            ("failed   dns: none", "\x1b[31mfailed\x1b[0m   dns: none"),
            ("skipped  dns: as asked", "\x1b[1mskipped\x1b[0m  dns: as asked"),
            ("failed to say", "failed to say"),
            ("fine     dns: found", "fine     dns: found"),
        ],
    )
    def test_the_verdicts_of_doctor(self, line: str, coloured: str) -> None:
        assert painted(line) == coloured


class TestLive:
    def test_a_long_command_is_folded_not_cut(self, capsys: pytest.CaptureFixture[str]) -> None:
        Live().draw(["x" * 70 + " " + "y" * 40, "", "end"])
        drawn = capsys.readouterr().out
        assert drawn.count("y") == 40 and drawn.endswith("\n\nend\n")


class TestChanges:
    def test_a_claim_on_its_way(self) -> None:
        order = ["fresh", "claimed", "registering", "provisioned"]
        lines, before = [], None
        for name in order:
            lines += changes(before, STATES[name], NOW)
            before = STATES[name]
        assert_snapshot("changes", lines)

    def test_nothing_new_says_nothing(self) -> None:
        assert changes(STATES["blocked"], STATES["blocked"], NOW) == []

    def test_a_problem_says_its_code(self) -> None:
        lines = changes(STATES["claimed"], STATES["not-accepted"], NOW)
        assert any(line.endswith("[claim-not-accepted]") for line in lines)


class TestExplain:
    @pytest.mark.parametrize("code", list(Code))
    def test_as_kept(self, code: Code) -> None:
        assert_snapshot(f"explain-{code.value}", explained(code))

    def test_the_list_as_kept(self) -> None:
        assert_snapshot("explain-list", explained_list())

    def test_with_this_device_s_own(self) -> None:
        assert_snapshot("explain-here", explained(Code.CLAIM_NOT_ACCEPTED, STATES["not-accepted"]["problem"]))

    def test_at_the_end_of_a_wait(self) -> None:
        assert_snapshot("told", told(STATES["blocked"]["problem"]))


class TestWords:
    def test_a_command_stays_whole(self) -> None:
        command = "aws iot describe-provisioning-template --template-name " + "T" * 36
        lines = wrapped(f"compare with {command}; then go on", first="what:  ", commands=[command])
        assert lines == ["what:  compare with", f"       {command}", "       then go on"]

    def test_a_command_that_begins_a_line_can_be_pasted_with_the_line(self) -> None:
        one, two = "aws iot update-certificate --new-status " + "A" * 20, "sudo claimd provision"
        text = f"approve it, and that soon: {one}, or correct the policy of the account and then run {two}."
        lines = wrapped(text, first="what:  ", commands=[one, two])
        assert lines == [
            "what:  approve it, and that soon:",
            f"       {one}",
            "       or correct the policy of the account and then run sudo claimd provision.",
        ]

    def test_commands_that_follow_each_other(self) -> None:
        one, two, three = "claimd explain", "claimd explain --list", "claimd wait"
        lines = wrapped(
            f"{'x' * 30} {one}, {two}; {three}.", rest="> ", commands=[one, two, three], columns=30
        )
        assert lines == ["x" * 30, f"> {one}", f"> {two}", f"> {three}"]

    def test_a_longer_word_is_not_the_command(self) -> None:
        lines = wrapped("a b claimd-drop c d", commands=["claimd"], columns=12)
        assert lines == ["a b", "claimd-drop", "c d"]

    @pytest.mark.parametrize("code", list(Code))
    @pytest.mark.parametrize("columns", [40, 60, 80])
    def test_every_command_of_the_catalogue(self, code: Code, columns: int) -> None:
        found = general(code)
        for line in labelled("what to do", found.remedy, width=17, commands=found.commands, columns=columns)[
            1:
        ]:
            begun = [command for command in found.commands if line.strip().startswith(command)]
            assert not begun or line.strip() in begun, line

    @pytest.mark.parametrize("code", list(Code))
    def test_the_command_that_explains_a_code_is_whole(self, code: Code) -> None:
        found = general(code)
        for lines in (
            problem_lines(found),
            status_lines({**STATES["fresh"], "problem": found.to_json()}, NOW),
        ):
            assert any(f"claimd explain {code.value}" in line for line in lines), lines

    def test_nothing_is_nothing(self) -> None:
        assert wrapped("", first="a:  ") == ["a:"]


def assert_fits(lines: list[str], found: dict[str, Any] | None) -> None:
    commands = [] if found is None else [*found["commands"]]
    commands += [line.strip() for line in lines if line.strip().startswith("aws iot list-principal-things ")]
    for line in lines:
        long = [c for c in commands if c in line]
        assert len(line) <= COLUMNS or any(len(line) <= 14 + len(c) + 1 for c in long), line
