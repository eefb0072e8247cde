"""The world around a machine in a container, and that machine: what most of the system tests stand on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from .machine import Machine, Network, root_file_system, scratch_directory
from .world import Sandbox, World, built_package

SUITE = os.environ.get("CLAIMD_SYSTEM_SUITE", "bookworm")


@dataclass
class ContainerWorld(World):
    machine: Machine


@contextlib.contextmanager
def container_world() -> Iterator[ContainerWorld]:
    """Booted, with nothing of claimd in it yet. All is gone at the end, however it ends."""
    package = built_package()
    lower = root_file_system(SUITE)
    network = Network(f"claimd{os.getpid()}")
    with scratch_directory() as scratch, contextlib.ExitStack() as at_the_end:
        at_the_end.callback(network.remove)
        network.make()
        directory = scratch / "sandbox"
        directory.mkdir()
        sandbox = Sandbox(network.command, network.outside_address, directory)
        at_the_end.callback(sandbox.stop)
        world = ContainerWorld(Machine(lower, scratch, network), sandbox, scratch, package)
        # Not the first one: a test may have put another machine in its place.
        at_the_end.callback(lambda: world.machine.stop())
        world.machine.boot()
        yield world
