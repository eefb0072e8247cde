from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimd.verdict import (
    DEFAULT_PASS_SECONDS,
    LONGEST_RETURN_SECONDS,
    Configuration,
    not_started,
    of_configuration,
    of_pass,
    timed_out,
    unread,
)

PROBLEM = {"code": "x-y", "message": "it is so", "remedy": "do it"}
SHOWN = {"schema": 1, "values": {"timeouts": {"pass_seconds": 30}}, "sha256": "ab"}


def line(**changes: Any) -> str:
    return json.dumps({"schema": 1, "outcome": "idle", "problem": None, "after_seconds": None, **changes})


class TestOfPass:
    def test_the_last_line_counts(self) -> None:
        found = of_pass(f"progress\n{{}}\n{line(outcome='active')}\n\n", "exit code 0")
        assert (found.outcome, found.problem, found.after_seconds, found.failed) == (
            *("active", None, None),
            False,
        )

    def test_a_problem_is_passed_on(self) -> None:
        assert of_pass(line(problem=PROBLEM), "").problem == PROBLEM

    @pytest.mark.parametrize("problem", ["text", [], {"code": "x"}, {"code": 1, "message": "m"}, 7])
    def test_a_problem_that_can_not_be_read_is_none(self, problem: object) -> None:
        assert of_pass(line(problem=problem), "").problem is None

    @pytest.mark.parametrize(
        "output",
        [
            "",
            "\n",
            "Traceback",
            "[]",
            "7",
            '"active"',
            line(schema=2),
            line(outcome=7),
            line(outcome=None),
            "{" * 100_000,
            "[" * 100_000,
            line() + "\nSegmentation fault",
        ],
    )
    def test_anything_else_is_a_crash_that_says_how_it_ended(self, output: str) -> None:
        found = of_pass(output, "killed by SIGSEGV")
        assert found.failed and found.outcome == "pass-crashed" and found.after_seconds is None
        assert found.problem is not None
        assert found.problem["message"] == ("the pass ended abnormally: killed by SIGSEGV, without a result")

    @pytest.mark.parametrize(
        ("said", "seconds"),
        [
            (None, None),
            (5, 5.0),
            (0.25, 0.25),
            (-3, 0.0),
            (1e300, LONGEST_RETURN_SECONDS),
            (True, None),
            ("5", None),
            ([], None),
        ],
    )
    def test_when_to_come_back(self, said: object, seconds: float | None) -> None:
        assert of_pass(line(after_seconds=said), "").after_seconds == seconds

    @pytest.mark.parametrize("said", ["NaN", "Infinity", "-Infinity"])
    def test_json_s_numbers_that_are_none(self, said: str) -> None:
        text = line(after_seconds=0.5).replace("0.5", said)
        assert of_pass(text, "").after_seconds is None


def test_timed_out() -> None:
    found = timed_out(180.0)
    assert found.failed and found.problem is not None
    assert found.problem["message"] == "the pass did not end within 180 s and was stopped"


def test_not_started() -> None:
    found = not_started("Cannot allocate memory")
    assert found.failed and found.problem is not None
    assert found.problem["message"].endswith("the process can't be started: Cannot allocate memory")


class TestOfConfiguration:
    def test_read(self) -> None:
        found = of_configuration(json.dumps(SHOWN, indent=2), "exit code 0")
        assert found == Configuration(ok=True, sha256="ab", pass_seconds=30.0)

    def test_a_problem_with_it(self) -> None:
        found = of_configuration(json.dumps({"schema": 1, "problem": PROBLEM}), "exit code 78")
        assert found == Configuration(problem=PROBLEM)
        assert not found.is_unread, "it was read, and is wrong"

    @pytest.mark.parametrize(
        "changes",
        [{"schema": 2}, {"values": []}, {"values": None}, {"sha256": 7}, {"sha256": None}, {"values": "x"}],
    )
    def test_what_is_no_answer_is_unread(self, changes: dict[str, object]) -> None:
        found = of_configuration(json.dumps({**SHOWN, **changes}), "exit code 1")
        assert found == unread("exit code 1")
        assert found.is_unread and found.problem is not None
        assert found.problem["message"] == "an error in claimd itself: claimd config show: exit code 1"

    @pytest.mark.parametrize(
        "timeouts", [None, [], {}, {"pass_seconds": 0}, {"pass_seconds": -1}, {"pass_seconds": "9"}]
    )
    def test_without_a_usable_limit_the_default_holds(self, timeouts: object) -> None:
        values = {} if timeouts is None else {"timeouts": timeouts}
        found = of_configuration(json.dumps({**SHOWN, "values": values}), "")
        assert found.ok and found.pass_seconds == DEFAULT_PASS_SECONDS


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(JSON, JSON, JSON)
def test_whatever_a_child_prints_there_is_a_verdict(outcome: Any, problem: Any, after: Any) -> None:
    found = of_pass(line(outcome=outcome, problem=problem, after_seconds=after), "exit code 0")
    assert found.problem is not None or not found.failed
    assert found.after_seconds is None or 0 <= found.after_seconds <= LONGEST_RETURN_SECONDS
    shown = of_configuration(line(values=outcome, sha256=problem, problem=after), "exit code 0")
    assert shown.ok or shown.problem is not None
    assert shown.pass_seconds > 0 and math.isfinite(shown.pass_seconds)


@given(st.text())
def test_nor_does_text_break_it(output: str) -> None:
    assert of_pass(output, "exit code 0").failed or output
    assert not of_configuration(output, "exit code 0").ok


def test_the_default_is_the_configuration_s() -> None:
    from claimd.settings import Timeouts

    assert Timeouts().pass_seconds == DEFAULT_PASS_SECONDS
