from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from claimd.notify import Notifier, watchdog_seconds


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[tuple[str, socket.socket]]:
    """An address and the socket that listens there."""
    address = f"@claimd-notify-{os.getpid()}" if request.param == "abstract" else f"/tmp/n{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address.replace("@", "\0"))
        listening.settimeout(20)
        yield address, listening
    Path(address).unlink(missing_ok=True)


def test_each_message(manager: tuple[str, socket.socket]) -> None:
    address, listening = manager
    notifier = Notifier(address)
    notifier.ready()
    notifier.alive()
    notifier.stopping()
    notifier.reloading()
    received = [listening.recv(4096).decode() for _ in range(4)]
    assert received[:3] == ["READY=1", "WATCHDOG=1", "STOPPING=1"]
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", received[3])


def test_a_status_is_one_line_and_sent_when_it_changes(manager: tuple[str, socket.socket]) -> None:
    address, listening = manager
    notifier = Notifier(address)
    for words in ("one", "one", "two\nREADY=1\n", "one"):
        notifier.status(words)
    received = [listening.recv(4096).decode() for _ in range(3)]
    assert received == ["STATUS=one", "STATUS=two READY=1", "STATUS=one"]


def test_words_that_no_encoding_takes(manager: tuple[str, socket.socket]) -> None:
    address, listening = manager
    Notifier(address).status("a \udcff name")
    assert listening.recv(4096) == b"STATUS=a \\udcff name"


def test_a_manager_that_does_not_read_holds_nothing_up(manager: tuple[str, socket.socket]) -> None:
    address, _ = manager
    notifier = Notifier(address)
    for _ in range(5000):  # far more than its queue holds
        notifier.alive()


@pytest.mark.parametrize("address", [None, "", "/nonexistent/notify", "x" * 200, "@" + "x" * 200])
def test_without_a_manager_nothing_is_said(address: str | None) -> None:
    notifier = Notifier(address)
    notifier.ready()
    notifier.status("words")


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "1e3"}, None),
        ({"WATCHDOG_USEC": "³"}, None),
    ],
)
def test_the_watchdog_s_time(environment: dict[str, str], seconds: float | None) -> None:
    assert watchdog_seconds(environment) == seconds
