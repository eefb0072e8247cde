"""The ARM64 package on an emulated ARM64 machine, where the kernel enforces everything."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from device import wait_for

from .emulated import HOST, EmulatedMachine, kernel
from .machine import root_file_system, scratch_directory
from .programs import ALLOWED, CAP_DAC_READ_SEARCH, CONSUMER, capabilities, probe
from .world import DROP, STATE, TECHNICIAN, Sandbox, World, built_package

pytestmark = pytest.mark.system_arm64

# An emulated machine on a busy one; nothing is ever this slow unless it hangs.
PATIENCE = 900.0
# What a person would give such a machine.
TIMEOUTS = "[timeouts]\nconnect_seconds = 60\nanswer_seconds = 60\npass_seconds = 600\n"
MEMORY_MAX = 192 * 1024 * 1024
GROUP = "/sys/fs/cgroup/system.slice/claimd.service"

# More than MemoryMax= allows, in a child as a worker is one; the parent must live to tell.
GREEDY = """
import os, sys
child = os.fork()
if child == 0:
    hoard = bytearray(400 * 1024 * 1024)
    os._exit(0)
_, status = os.waitpid(child, 0)
print("the child was ended by signal", os.WTERMSIG(status) if os.WIFSIGNALED(status) else "none")
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    package = built_package("arm64")
    lower = root_file_system("bookworm", "arm64")
    with scratch_directory() as scratch:
        machine = EmulatedMachine(lower, kernel("bookworm"), scratch)
        sandbox: Sandbox | None = None
        try:
            directory = scratch / "sandbox"
            directory.mkdir()
            sandbox = Sandbox(machine.outside, machine.address, directory)
            began = time.monotonic()
            machine.boot()
            print(f"\nbooted in {time.monotonic() - began:.0f} s: {machine.run('uname', '-rm').strip()}")
            yield World(machine, sandbox, scratch, package, PATIENCE)
        finally:
            machine.stop()
            if sandbox is not None:
                sandbox.stop()


def test_an_installation_without_configuration_ends_green(world: World) -> None:
    world.make_technician()
    world.install(world.package)
    run = world.machine.run
    assert run("systemctl", "is-active", "claimd.service").strip() == "active"
    assert "claimd" not in run("systemctl", "list-units", "--failed", "--plain", "--no-legend")
    problem = wait_for(lambda: world.status()["problem"], "the first pass", PATIENCE)
    assert problem["code"] == "not-configured"
    assert run("dpkg", "--print-architecture").strip() == "arm64"


def test_a_copied_claim_becomes_an_identity(world: World) -> None:
    machine = world.machine
    world.set_up(HOST, TIMEOUTS)
    wait_for(lambda: world.status()["problem"] is None, "the configuration", PATIENCE)
    began = time.monotonic()
    world.scp(world.sandbox.claim())
    world.wait_for_state("provisioned")
    print(f"\nfrom scp to the identity: {time.monotonic() - began:.0f} s")
    wait_for(lambda: machine.run("ls", "-A", DROP) == "", "an empty drop directory", PATIENCE)
    assert machine.run("ls", "-A", f"{STATE}/claims") == ""
    assert capabilities(world, world.main_pid()) == {CAP_DAC_READ_SEARCH}
    wait_for(
        lambda: machine.unit("claimd-identity.target", "ActiveState") == "active", "the target", PATIENCE
    )
    machine.run("useradd", "--system", "--groups", "claimd-identity", "application")
    machine.write("/opt/consumer.py", CONSUMER)
    machine.run("python3", "/opt/consumer.py", user="application")
    assert machine.attempt("cat", f"{STATE}/identity/current/private.key", user=TECHNICIAN).returncode != 0


def test_the_memory_limit_is_in_force_and_has_room(world: World) -> None:
    machine = world.machine
    assert int(machine.read(f"{GROUP}/memory.max")) == MEMORY_MAX
    assert machine.read(f"{GROUP}/memory.swap.max").strip() == "0"
    # Watcher and worker together, with the page cache that they caused.
    peak = int(machine.read(f"{GROUP}/memory.peak"))
    events = dict(line.split() for line in machine.read(f"{GROUP}/memory.events").splitlines())
    resident = machine.run("sh", "-c", f"grep VmRSS /proc/{world.main_pid()}/status").split()[1]
    print(f"\nmemory: a whole attempt {peak / 1e6:.0f} MB, the watcher {int(resident) / 1e3:.0f} MB")
    assert events["oom_kill"] == "0"

    machine.write("/usr/local/lib/greedy.py", GREEDY)
    unit = machine.read("/usr/lib/systemd/system/claimd.service")
    unit = unit.replace("Type=notify", "Type=oneshot").replace("Restart=on-failure", "Restart=no")
    unit = unit.replace("/usr/bin/claimd run", "/usr/bin/python3 -I /usr/local/lib/greedy.py")
    machine.write("/run/systemd/system/greedy.service", unit.replace("WatchdogSec=180\n", ""))
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "greedy.service")
    machine.run("journalctl", "--sync")
    said = machine.run("journalctl", "--no-pager", "-o", "cat", "-u", "greedy.service")
    assert "the child was ended by signal 9" in said


def test_what_must_be_denied_is_denied(world: World) -> None:
    found = probe(world.machine)
    print("\n" + json.dumps(found, indent=1))
    assert {name for name, outcome in found.items() if outcome == "done"} == ALLOWED, found
    world.machine.run("systemd-analyze", "security", "--threshold=15", "claimd.service")
