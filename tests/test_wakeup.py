from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from claimd.wakeup import Wakeup

LONG = 60.0  # seconds; a test that sleeps them has failed


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield Wakeup()
    signal.set_wakeup_fd(-1)
    for number, handler in kept.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def slept(wakeup: Wakeup, seconds: float = LONG, descriptors: tuple[int, ...] = ()) -> float:
    began = time.monotonic()
    wakeup.sleep(seconds, descriptors)
    return time.monotonic() - began


def test_a_signal_ends_the_sleep_and_is_noted_once(wakeup: Wakeup) -> None:
    wakeup.listen((signal.SIGUSR1, signal.SIGUSR2))
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert slept(wakeup) < LONG
    assert wakeup.take_signals() == {signal.SIGUSR1}
    assert wakeup.take_signals() == set()


def test_a_signal_before_the_sleep_is_not_lost(wakeup: Wakeup) -> None:
    wakeup.listen((signal.SIGUSR1,))
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    assert slept(wakeup) < LONG
    assert wakeup.take_signals() == {signal.SIGUSR1}


def test_a_blocked_signal_is_let_through(wakeup: Wakeup) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    wakeup.listen((signal.SIGUSR1,))
    # To this thread: others of the test runner never had it blocked.
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    assert slept(wakeup) < LONG
    assert wakeup.take_signals() == {signal.SIGUSR1}


def test_another_thread_ends_the_sleep(wakeup: Wakeup) -> None:
    threading.Timer(0.1, wakeup.ring).start()
    assert slept(wakeup) < LONG


def test_ringing_without_end_blocks_nobody(wakeup: Wakeup) -> None:
    for _ in range(100_000):  # more than a pipe holds
        wakeup.ring()
    assert slept(wakeup) < LONG


def test_output_of_a_child_ends_the_sleep(wakeup: Wakeup) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"x")
    assert slept(wakeup, descriptors=(read_end,)) < LONG
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("seconds", [0.0, -5.0, 0.05])
def test_the_time_ends_the_sleep_and_never_too_early(wakeup: Wakeup, seconds: float) -> None:
    assert slept(wakeup, seconds) >= max(seconds, 0.0)
