"""Whether a claim would find its way: each thing in its way is named, in the order of a pass."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest

from claimd.errors import Code, Problem, problem
from claimd.model import Layout
from claimd.ready import trouble, trouble_unless
from material import authority

NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "etc/claimd").mkdir(parents=True)
    (tmp_path / "ca.pem").write_bytes(authority().pem)
    made = Layout(str(tmp_path))
    Path(made.config_file).write_text(
        f'endpoint = "device.example"\nca_file = "{tmp_path}/ca.pem"\n[template]\nname = "T"\n'
    )
    return made


class Way:
    """What each port answers."""

    def __init__(self, **answers: Code | None) -> None:
        self.answers = answers
        self.asked: list[int] = []

    def diagnose(self, host: str, port: int, roots: bytes) -> Problem | None:
        self.asked.append(port)
        code = self.answers[f"port_{port}"]
        return None if code is None else problem(code, endpoint=host, port=port, detail="x")


def test_ready(layout: Layout) -> None:
    way = Way(port_8883=None)
    assert trouble(layout, None, NOW, way.diagnose) is None
    assert way.asked == [8883]


def test_by_the_other_port(layout: Layout) -> None:
    way = Way(port_8883=Code.CONNECTION_REFUSED, port_443=None)
    assert trouble(layout, None, NOW, way.diagnose) is None


def test_both_ports_closed_names_the_first(layout: Layout) -> None:
    way = Way(port_8883=Code.ENDPOINT_UNREACHABLE, port_443=Code.CONNECTION_REFUSED)
    found = trouble(layout, None, NOW, way.diagnose)
    assert found is not None and found.code is Code.ENDPOINT_UNREACHABLE


def test_what_another_port_can_t_cure(layout: Layout) -> None:
    way = Way(port_8883=Code.TLS_UNTRUSTED_CA)
    found = trouble(layout, None, NOW, way.diagnose)
    assert found is not None and found.code is Code.TLS_UNTRUSTED_CA and way.asked == [8883]


def test_a_clock_of_1970(layout: Layout) -> None:
    found = trouble(layout, None, datetime(1970, 1, 1, 0, 5, tzinfo=timezone.utc), Way().diagnose)
    assert found is not None and found.code is Code.CLOCK_WRONG
    assert "1970-01-01 00:05:00 UTC" in found.happened
    assert found.commands[-1] == "sudo date -u -s 'YYYY-MM-DD HH:MM:SS'"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", Code.NOT_CONFIGURED),
        ("endpoint = 1", Code.CONFIG_INVALID),
        (
            'endpoint = "e"\n[template]\nname = "T"\nparameters = {A = "{file:/none}"}',
            Code.PARAMETER_UNRESOLVED,
        ),
        ('endpoint = "e"\nca_file = "/none"\n[template]\nname = "T"', Code.CA_UNUSABLE),
    ],
)
def test_the_configuration(layout: Layout, text: str, code: Code) -> None:
    Path(layout.config_file).write_text(text)
    found = trouble(layout, None, NOW, Way().diagnose)
    assert found is not None and found.code is code


class TestSomethingBetterToDo:
    def test_the_answer(self) -> None:
        why = problem(Code.DNS_FAILED, endpoint="x")
        assert trouble_unless(lambda: False, lambda: why) == (True, why)

    def test_given_up(self) -> None:
        hangs = threading.Event()

        def ask() -> Problem | None:
            hangs.wait(60)
            return None

        try:
            assert trouble_unless(lambda: True, ask) == (False, None)
        finally:
            hangs.set()

    def test_an_answer_that_can_t_be_had_is_told_to_who_asked(self) -> None:
        """Lost in its thread it would look like something better to do, and nobody would ask again."""

        def ask() -> Problem | None:
            raise OSError("a surprise")

        with pytest.raises(OSError, match="a surprise"):
            trouble_unless(lambda: False, ask)
