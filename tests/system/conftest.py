"""A failure shows what the machine's journal said last."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from .container import ContainerWorld, container_world
from .world import World


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
        said = world.machine.attempt("journalctl", "-b", "--no-pager", "-n", "80", "-o", "short-monotonic")
        report.sections.append(("the machine's journal", said.stdout))
    return report
