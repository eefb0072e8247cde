"""The frame of `claimd doctor`: one cause is reported once, and nothing that breaks stops the others."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimd.errors import Code, fail
from claimd.inquiry import (
    Answer,
    Check,
    Finding,
    Found,
    document,
    examine,
    exit_code,
    failed,
    lines,
    list_lines,
    ok,
    skipped,
    warning,
)
from claimd.words import COLUMNS


def check(name: str, ends: Found | Exception, *needs: str) -> Check[list[str]]:
    """One that writes down that it was asked."""

    def ask(asked: list[str]) -> Found:
        asked.append(name)
        if isinstance(ends, Exception):
            raise ends
        return ends

    return Check(name, f"the check {name}", ask, needs)


GOOD, HM, BAD = ok("yes"), warning("hm", "look"), failed("no", "do it")


class TestNeeds:
    @pytest.mark.parametrize("stops", [BAD, skipped("by itself"), OSError(errno.EIO, "no")])
    def test_one_cause_is_reported_once(self, stops: Found | Exception) -> None:
        chain = [check("a", stops), check("b", GOOD, "a"), check("c", GOOD, "b"), check("d", GOOD)]
        asked: list[str] = []
        answers = examine(chain, asked)
        assert asked == ["a", "d"], "what rests on it is not even asked"
        assert [answer.id for answer in answers] == ["a", "b", "c", "d"]
        assert answers[1].found == skipped("because of a")
        assert answers[2].found == skipped("because of b")
        assert answers[3].found == GOOD

    @pytest.mark.parametrize("found", [GOOD, HM])
    def test_a_warning_is_good_enough(self, found: Found) -> None:
        answers = examine([check("a", found), check("b", GOOD, "a")], [])
        assert [answer.found for answer in answers] == [found, GOOD]

    def test_the_first_of_two_that_failed_is_named(self) -> None:
        chain = [check("a", GOOD), check("b", BAD), check("c", BAD), check("d", GOOD, "a", "b", "c")]
        assert examine(chain, [])[-1].found == skipped("because of b")


class TestChoosing:
    CHAIN = (
        check("a", GOOD),
        check("b", GOOD, "a"),
        check("c", GOOD, "b", "a"),
        check("d", GOOD),
    )

    def test_what_it_needs_is_asked_and_not_told(self) -> None:
        asked: list[str] = []
        answers = examine(self.CHAIN, asked, only=("c",))
        assert asked == ["a", "b", "c"] and [answer.id for answer in answers] == ["c"]

    def test_in_the_order_of_the_checks(self) -> None:
        assert [answer.id for answer in examine(self.CHAIN, [], only=("d", "a"))] == ["a", "d"]

    def test_what_is_skipped_takes_along_what_rests_on_it(self) -> None:
        asked: list[str] = []
        answers = {answer.id: answer.found for answer in examine(self.CHAIN, asked, skip=("b",))}
        assert asked == ["a", "d"]
        assert (answers["b"], answers["c"]) == (skipped("as asked"), skipped("because of b"))

    def test_skipped_and_chosen(self) -> None:
        (answer,) = examine(self.CHAIN, [], only=("c",), skip=("a",))
        assert answer.found == skipped("because of b"), "the next one in the chain"


class TestOneThatBreaks:
    def test_a_failure_of_the_catalogue_keeps_its_remedy(self) -> None:
        trouble = fail(Code.DNS_FAILED, endpoint="e.example")
        (answer,) = examine([check("a", trouble)], [])
        found = answer.found
        assert found.verdict is Finding.FAILED and found.evidence == trouble.problem.happened
        assert found.remedy == f"{trouble.problem.remedy} (claimd explain dns-failed)"
        assert found.commands == trouble.problem.commands

    def test_the_system_s_names_the_file_and_asks_for_root(self) -> None:
        (answer,) = examine([check("a", PermissionError(errno.EACCES, "Permission denied", "/etc/x"))], [])
        assert answer.found == failed(
            "/etc/x: Permission denied", "run it as root: sudo claimd doctor", "sudo claimd doctor"
        )

    @pytest.mark.parametrize(
        "error", [OSError(errno.EIO, "Input/output error"), OSError("Input/output error")]
    )
    def test_the_system_s_without_a_file(self, error: OSError) -> None:
        (answer,) = examine([check("a", error)], [])
        assert answer.found.evidence == "Input/output error"

    def test_our_own_mistake_says_where_and_nothing_of_what_it_held(self) -> None:
        answers = examine([check("a", ZeroDivisionError("hunter2")), check("b", GOOD)], [])
        assert "check a: ZeroDivisionError" in answers[0].found.evidence
        assert "hunter2" not in str(document(answers))
        assert answers[1].found == GOOD, "the others go on"


@pytest.mark.parametrize(
    ("found", "plain", "strict"), [(GOOD, 0, 0), (skipped("x"), 0, 0), (HM, 0, 1), (BAD, 1, 1)]
)
def test_exit_codes(found: Found, plain: int, strict: int) -> None:
    answers = [Answer("a", "A", GOOD), Answer("b", "B", found)]
    assert (exit_code(answers, strict=False), exit_code(answers, strict=True)) == (plain, strict)
    assert exit_code([], strict=True) == 0


class TestAsText:
    def test_the_verdict_first_and_the_remedy_below(self) -> None:
        answers = [
            Answer("disk", "D", failed("it is full", "make room: df -h /var", "df -h /var")),
            Answer("dns", "N", ok("found")),
        ]
        assert lines(answers) == [
            "failed   disk: it is full",
            "         what to do: make room: df -h /var",
            "ok       dns: found",
            "",
            "1 ok, 1 failed (disk)",
        ]

    def test_it_fits_the_screen(self) -> None:
        found = [Answer("a-check", "A", failed("evidence " * 20, "do this " * 20, "a command"))]
        assert all(len(line) <= COLUMNS for line in lines(found))
        assert all(len(line) <= 50 for line in lines(found, 50))

    def test_what_needs_somebody_is_named_again_at_the_end(self) -> None:
        answers = [
            Answer("first", "A", BAD),
            Answer("second", "B", GOOD),
            Answer("third", "C", BAD),
            Answer("fourth", "D", HM),
            Answer("fifth", "E", skipped("because of first")),
        ]
        assert lines(answers)[-1] == "1 ok, 1 warning (fourth), 2 failed (first, third), 1 skipped"
        assert lines([])[-1] == "nothing was checked"

    @given(st.text(max_size=40))
    def test_nothing_that_a_terminal_obeys(self, text: str) -> None:
        answers = [Answer("a", "A", failed("x" + text, "y" + text))]
        assert all(line.isprintable() for line in lines(answers))
        assert document(answers)["checks"][0]["evidence"].isprintable()

    def test_the_list_is_one_column_beside_another(self) -> None:
        assert list_lines([check("a", GOOD), check("long-one", GOOD)]) == [
            "a         the check a",
            "long-one  the check long-one",
        ]


def test_the_document_is_the_same_results() -> None:
    answers = [Answer("a", "A", GOOD), Answer("b", "B", failed("no", "run x", "x"))]
    assert document(answers) == {
        "schema": 1,
        "summary": {"ok": 1, "warning": 0, "failed": 1, "skipped": 0},
        "checks": [
            {
                "id": "a",
                "description": "A",
                "verdict": "ok",
                "evidence": "yes",
                "remedy": "",
                "commands": [],
            },
            {
                "id": "b",
                "description": "B",
                "verdict": "failed",
                "evidence": "no",
                "remedy": "run x",
                "commands": ["x"],
            },
        ],
    }
