"""A failure shows what the machine's journal said last."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from .world import World


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
