"""Machines that were not installed: cloned, restored from another one, updated by slots, read-only.

Each test goes on where the one before stopped.
"""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import pytest

from device import wait_for

from .container import ContainerWorld
from .machine import Network
from .programs import CONSUMER
from .world import DROP, STATE, TECHNICIAN

pytestmark = pytest.mark.system

HOOK_LOG = "/var/log/hooks"
HOOKS_SEEN = "/var/lib/claimd-hooks/seen.json"
HOOK = f"#!/bin/sh\necho $CLAIMD_CERTIFICATE_ID >>{HOOK_LOG}\n"
# Whom a file of claimd's belongs to, by the names that the machine has for the numbers on its disk.
OWNERS = {
    STATE: "claimd claimd",
    f"{STATE}/activated": "claimd claimd",
    f"{STATE}/attempt.json": "claimd claimd",
    f"{STATE}/identity": "claimd claimd-identity",
    f"{STATE}/identity/current/private.key": "claimd claimd-identity",
    "/var/spool/claimd": "root claimd-drop",
    DROP: "claimd claimd",
    "/var/spool/claimd/result": "claimd claimd-drop",
    "/var/spool/claimd/result/latest.txt": "claimd claimd-drop",
}


def provisioned(world: ContainerWorld, name: str) -> dict[str, object]:
    """By a real copy. What the status says of the identity, with which a consumer has connected."""
    world.scp(world.sandbox.claim(), name)
    identity: dict[str, object] = world.wait_for_state("provisioned")["identity"]
    world.machine.run("python3", "/opt/consumer.py", user="application")
    return identity


def hooks_have_seen(world: ContainerWorld, certificate: str) -> None:
    """What they have done is remembered, and they rest: a hook that a stop comes upon runs again."""
    machine = world.machine
    wait_for(lambda: certificate in machine.attempt("cat", HOOKS_SEEN).stdout, "the hook's end")
    wait_for(lambda: machine.unit("claimd-hooks.service", "ActiveState") == "inactive", "the hooks' rest")


def test_an_image_is_made_of_a_device_that_was_in_use(world: ContainerWorld) -> None:
    machine = world.machine
    world.make_technician()
    world.install(world.package)
    world.set_up(Network.outside_address, 'reprovision = "replace"\n')
    machine.run("useradd", "--system", "--groups", "claimd-identity", "application")
    machine.write("/opt/consumer.py", CONSUMER)
    machine.write("/etc/claimd/hooks.d/10-log", HOOK, 0o755)
    machine.write("/etc/sudoers.d/technician", f"{TECHNICIAN} ALL=(ALL) NOPASSWD: ALL\n", 0o440)
    hooks_have_seen(world, str(provisioned(world, "first.json")["certificate_id"]))
    world.scp("-----BEGIN something that is no claim", "left.txt")

    said = machine.run("sudo", "claimd", "forget", "--yes", "--generalize", user=TECHNICIAN)
    assert "the image holds no secret and no memory of this device" in said
    assert world.keys_in("/var") + world.keys_in("/run") == []
    assert machine.run("ls", "-A", DROP) == ""
    assert machine.run("ls", "-A", str(Path(HOOKS_SEEN).parent)) == ""
    # Nothing that the daemon could not write: it goes on, and would take the next claim.
    found = machine.run(
        "find", STATE, "/run/claimd", "/var/spool/claimd/result", "-ignore_readdir_race", "-user", "root"
    )
    assert found.split() in ([], ["/run/claimd/dmi-serial"])
    assert machine.unit("claimd.service", "ActiveState") == "active"


def test_two_clones_of_it_become_two_things(world: ContainerWorld) -> None:
    image = world.machine
    image.run("truncate", "--size=0", "/etc/machine-id")
    image.stop()
    ids, identities = set(), []
    for name in ("one", "two"):
        world.machine.stop()
        world.machine = image.copied(world.scratch / name)
        world.machine.boot()
        ids.add(world.machine.read("/etc/machine-id").strip())
        identities.append(provisioned(world, f"clone-{name}.json"))
    assert len(ids) == 2
    assert {one["thing_name"] for one in identities} == {f"gateway-{one}" for one in ids}
    assert identities[0]["certificate_id"] != identities[1]["certificate_id"]


def test_state_of_another_device_is_reported_and_never_acted_on(world: ContainerWorld) -> None:
    machine = world.machine
    certificate, cloud = world.identity(), world.sandbox.certificates()
    machine.stop()
    (machine.upper / "etc/machine-id").write_text(uuid.uuid4().hex + "\n")
    machine.boot()
    code = "state-of-another-device"
    wait_for(lambda: (world.status()["problem"] or {}).get("code") == code, "the report")
    claim = world.sandbox.claim()
    world.scp(claim, "wrong-disk.json")
    asked = machine.attempt("sudo", "claimd", "provision", user=TECHNICIAN)
    assert asked.returncode != 0 and "belongs to another device" in asked.stdout + asked.stderr
    assert machine.read(f"{DROP}/wrong-disk.json") == claim
    assert world.identity() == certificate and world.sandbox.certificates() == cloud
    assert machine.journal(f"CLAIMD_ERROR_CODE={code}")
    checks = json.loads(machine.attempt("sudo", "claimd", "doctor", "--json").stdout)
    assert code in json.dumps(checks) or "another device" in json.dumps(checks)

    machine.run("sudo", "claimd", "provision", "--adopt", user=TECHNICIAN)
    wait_for(lambda: world.identity() != certificate, "the claim that lay there")
    assert world.status()["problem"] is None
    machine.run("python3", "/opt/consumer.py", user="application")


def test_another_slot_with_other_ids_finds_its_files(world: ContainerWorld) -> None:
    """Each of our groups has the number of another one of them, and the user that of a consumer."""
    machine = world.machine
    machine.stop()
    etc = machine.upper / "etc"
    groups = _numbers(etc / "group")
    names = ("claimd", "claimd-identity", "claimd-drop")
    group = dict(zip((groups[x] for x in names), (groups[x] for x in (*names[1:], names[0])), strict=True))
    users = _numbers(etc / "passwd")
    user = {users["claimd"]: users["application"], users["application"]: users["claimd"]}
    _renumber(etc / "group", {2: group})
    _renumber(etc / "passwd", {2: user, 3: group})
    machine.boot()
    assert machine.run("id", "-u", "claimd").strip() == users["application"]
    listed = machine.run("stat", "-c", "%n=%U %G", *OWNERS).splitlines()
    assert dict(line.split("=") for line in listed) == OWNERS
    before = world.identity()
    machine.run("python3", "/opt/consumer.py", user="application")
    world.scp(world.sandbox.claim(), "other-slot.json")
    wait_for(lambda: world.identity() != before, "a claim in the other slot")
    assert world.status()["problem"] is None


def _numbers(path: Path) -> dict[str, str]:
    """By name, in passwd(5) or group(5)."""
    return {fields[0]: fields[2] for fields in (line.split(":") for line in path.read_text().splitlines())}


def _renumber(path: Path, columns: dict[int, dict[str, str]]) -> None:
    lines = [line.split(":") for line in path.read_text().splitlines()]
    for fields in lines:
        for column, numbers in columns.items():
            fields[column] = numbers.get(fields[column], fields[column])
    path.write_text("".join(":".join(fields) + "\n" for fields in lines))


def test_a_read_only_image_with_a_var_of_its_own(world: ContainerWorld) -> None:
    """Its /var is another file system than its root, and claimd has never been there: a first boot."""
    machine = world.machine
    hooks_have_seen(world, world.identity())
    # A file that goes while it is copied is an error of cp's.
    machine.run("systemctl", "stop", "claimd", "claimd-hooks.path")
    machine.run("cp", "-a", "--one-file-system", "/var", "/srv/var")
    machine.stop()
    var = machine.scratch / "var"
    (machine.upper / "srv/var").rename(var)
    for each in ("lib/claimd", "lib/claimd-hooks", "spool/claimd", "log/hooks"):
        shutil.rmtree(var / each) if (var / each).is_dir() else (var / each).unlink()
    partitions = ("--read-only", f"--bind={var}:/var")
    machine.boot(*partitions)
    assert "Read-only" in machine.attempt("touch", "/etc/claimd/x", "/x").stderr
    assert machine.run("stat", "-c", "%a %U %G", f"{STATE}/identity") == "2750 claimd claimd-identity\n"
    certificate = provisioned(world, "read-only.json")["certificate_id"]
    hooks_have_seen(world, str(certificate))
    assert machine.read(HOOK_LOG).split() == [certificate]

    machine.stop()
    machine.boot(*partitions)
    wait_for(lambda: machine.unit("claimd-identity.target", "ActiveState") == "active", "the target")
    assert world.wait_for_state("provisioned")["identity"]["certificate_id"] == certificate
    machine.run("python3", "/opt/consumer.py", user="application")
    assert machine.read(HOOK_LOG).split() == [certificate]
    failed = machine.run("systemctl", "list-units", "--failed", "--plain", "--no-legend")
    assert "claimd" not in failed, failed
