"""A failure shows what the machine's journal said last, and takes no other test with it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Generator, Iterator

import pytest

from .container import ContainerWorld, container_world
from .world import DROP, World

# What a test that failed half-way has left of its own.
TIDY = f"""
rm -rf /root/hook-sleeps /root/hook-fails /run/systemd/system/claimd*.d {DROP}/*
systemctl daemon-reload
test ! -e /usr/bin/claimd || systemctl start claimd-hooks.path claimd-identity.path
test ! -e /usr/bin/claimd || systemctl restart claimd
"""


@pytest.fixture(scope="module")
def world() -> Iterator[ContainerWorld]:
    """One machine for all tests of a module, each of which goes on where the one before stopped."""
    with container_world() as found:
        yield found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    world = getattr(item, "funcargs", {}).get("world")
    if report.when == "call" and report.failed and isinstance(world, World):
        # A machine that does not answer is no reason to lose the report.
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            said = world.machine.attempt(
                "journalctl", "-b", "--no-pager", "-n", "80", "-o", "short-monotonic"
            )
            report.sections.append(("the machine's journal", said.stdout))
            world.sandbox.clear_faults()
            world.machine.attempt("sh", "-c", TIDY)
    return report
