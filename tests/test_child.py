from __future__ import annotations

import os
import signal
import sys

import pytest

from claimd.child import MAX_OUTPUT_BYTES, Child, ending, environment, same_program
from device import wait_for


def finished(child: Child) -> Child:
    wait_for(child.ended, "the child's end")
    return child


def shell(script: str) -> Child:
    return Child(("/bin/sh", "-c", script), {"PATH": os.environ["PATH"]})


def test_its_output_and_its_end() -> None:
    child = finished(shell("echo one; echo two; exit 7"))
    assert child.output() == "one\ntwo\n"
    assert child.status is not None and ending(child.status) == "exit code 7"
    assert child.descriptor is None


def test_output_that_is_no_text() -> None:
    assert finished(shell("printf 'a\\377b'")).output() == "a\ufffdb"


def test_the_end_of_much_output_is_kept() -> None:
    child = shell(f"head -c {MAX_OUTPUT_BYTES * 2} /dev/zero; echo last")

    def ended() -> bool:
        child.read()
        return child.ended()

    wait_for(ended, "the child's end")
    output = child.output()
    assert output.endswith("last\n") and len(output) == MAX_OUTPUT_BYTES


def test_a_program_that_is_not_there() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        Child(("/nonexistent/claimd",), {})
    assert set(os.listdir("/proc/self/fd")) == before, "nothing is left open"


def test_a_signal_reaches_what_it_started() -> None:
    child = shell("sleep 1000 & wait")
    child.send(signal.SIGKILL)
    assert ending(finished(child).status or 0) == "killed by SIGKILL"


def test_a_signal_to_one_that_has_ended_is_nothing() -> None:
    child = finished(shell("exit 0"))
    child.send(signal.SIGKILL)
    assert child.status == 0


def test_a_signal_in_the_moment_of_its_end() -> None:
    """Ended, and not yet asked for: the group is a zombie's, and the signal goes nowhere."""
    child = shell("exit 3")
    wait_for(lambda: os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG), "its end")
    child.send(signal.SIGKILL)
    assert ending(finished(child).status or 0) == "exit code 3"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
def test_a_death_has_its_signal_s_name(number: signal.Signals) -> None:
    child = finished(shell(f"kill -{int(number)} $$"))
    assert ending(child.status or 0).startswith(f"killed by {number.name}")


def test_a_death_by_a_signal_without_a_name() -> None:
    assert ending(finished(shell("kill -40 $$")).status or 0) == "killed by signal 40"


def test_the_environment_is_an_allow_list() -> None:
    own = {
        "PATH": "/bin",
        "LANG": "C.UTF-8",
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "WATCHDOG_USEC": "1",
        "AWS_SECRET_ACCESS_KEY": "x",
        "LD_PRELOAD": "x.so",
        "PYTHONSTARTUP": "x.py",
    }
    assert environment(own) == {"PATH": "/bin", "LANG": "C.UTF-8"}


def test_the_same_program_runs_the_same_python() -> None:
    assert same_program()[0] == sys.executable
