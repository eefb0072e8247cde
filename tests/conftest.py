"""What stands beside the tests gets their readable assertions too."""

from __future__ import annotations

import signal

import pytest

# Whoever runs the tests in the background of a script has it ignored (POSIX), and so would every program that
# a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest.register_assert_rewrite("device", "material", "relay", "sandbox_world")
