"""A device's life in order, on a machine with systemd: from `apt install` to `apt purge`.

Each test goes on where the one before stopped; what one of them needs to be true it asserts itself.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from claimd.news import MessageId
from device import wait_for

from .container import ContainerWorld
from .machine import Network
from .programs import ALLOWED, CAP_DAC_READ_SEARCH, CONSUMER, capabilities, probe
from .programs import connected_worker_s_capabilities as of_the_worker
from .world import DROP, STATE, TECHNICIAN, repacked

pytestmark = pytest.mark.system

TARGET = "claimd-identity.target"
HOOK_LOG = "/root/hooks.log"

HOOK = f"""#!/bin/sh
echo "says $CLAIMD_THING_NAME"
echo "$CLAIMD_CERTIFICATE_ID after $CLAIMD_PREVIOUS_CERTIFICATE_ID" >>{HOOK_LOG}
test ! -e /root/hook-sleeps || sleep 1000
test ! -e /root/hook-fails
"""

DEVICE_CLIENT = """
[Unit]
Description=Stands for the AWS IoT Device Client
After=claimd-identity.target
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=claimd-identity.target
"""


def hook_runs(world: ContainerWorld) -> list[str]:
    if not world.machine.exists(HOOK_LOG):
        return []
    return world.machine.read(HOOK_LOG).splitlines()


# --- day one


def test_the_package_is_in_order(world: ContainerWorld) -> None:
    """By Debian's own checker, at every severity that it calls a fault."""
    ended = subprocess.run(
        ["lintian", "--fail-on", "error,warning", "--allow-root", str(world.package)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_an_installation_without_configuration_ends_green(world: ContainerWorld) -> None:
    world.make_technician()
    said = world.install(world.package)
    assert "sudo claimd setup --endpoint" in said
    listed = world.machine.run("claimd", "version", "--components")
    assert "awscrt" in listed and "pydantic-core" in listed
    run = world.machine.run
    assert run("systemctl", "is-active", "claimd.service").strip() == "active"
    assert run("systemctl", "list-units", "--failed", "--plain", "--no-legend") == ""
    problem = wait_for(lambda: world.status()["problem"], "the first pass")
    assert problem["code"] == "not-configured"
    assert problem["message"].startswith("not configured: set endpoint and template")
    wait_for(
        lambda: "not configured" in world.machine.unit("claimd.service", "StatusText"), "the status in a line"
    )
    assert world.machine.unit(TARGET, "ActiveState") == "inactive"
    for unit in ("claimd-identity.path", "claimd-hooks.path"):
        assert world.machine.unit(unit, "ActiveState") == "active"


def is_known(world: ContainerWorld, complaint: str) -> bool:
    """Of a systemd that is older than what claimd is made for: that one lacks this value (NEWS of 249)."""
    version = int(world.machine.run("systemctl", "--version").split()[1])
    return version < 249 and "Failed to parse address family, ignoring: none" in complaint


def test_the_units_are_right_and_closed_on_this_very_machine(world: ContainerWorld) -> None:
    units = (
        "claimd.service claimd-identity.path claimd-identity.target claimd-hooks.path claimd-hooks.service"
        " claimd-hooks.timer"
    )
    verified = world.machine.attempt("systemd-analyze", "verify", "--man=no", *units.split())
    told = world.machine.journal("_PID=1", "--priority=warning", "--boot")
    said = verified.stderr.splitlines() + [str(line["MESSAGE"]) for line in told if "claimd" in str(line)]
    assert [line for line in said if "claimd" in line and not is_known(world, line)] == []
    # Not by --threshold, which a systemd of 2021 hasn't got.
    judged = world.machine.run("systemd-analyze", "security", "--no-pager", "claimd.service")
    level = re.search(r"Overall exposure level for claimd.service: ([\d.]+)", judged)
    assert level is not None and float(level[1]) <= 1.5, judged


def test_setup_is_picked_up_without_a_restart(world: ContainerWorld) -> None:
    pid = world.main_pid()
    assert "wrote /etc/claimd/conf.d/50-setup.toml" in world.set_up(Network.outside_address)
    wait_for(lambda: world.status()["problem"] is None, "the configuration")
    assert world.main_pid() == pid
    assert "claimd-drop" in world.machine.run("id", "-nG", TECHNICIAN).split()
    listed = world.machine.run("stat", "-c", "%a %U", "/etc/claimd/conf.d/50-setup.toml")
    assert listed == "644 root\n"


# --- the claim


def test_a_copied_claim_becomes_an_identity_and_everybody_hears_of_it(world: ContainerWorld) -> None:
    machine = world.machine
    machine.write("/etc/claimd/hooks.d/10-log", HOOK, 0o755)
    machine.run(
        *("ln", "-s", "/usr/share/claimd/hooks/50-aws-iot-device-client"),
        "/etc/claimd/hooks.d/50-aws-iot-device-client",
    )
    machine.write("/etc/systemd/system/aws-iot-device-client.service", DEVICE_CLIENT)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", "aws-iot-device-client.service")
    # Long enough to look at the worker at its work.
    world.sandbox.fault("delay step=register ms=4000 times=1")
    world.scp(world.sandbox.claim())

    assert wait_for(lambda: of_the_worker(world), "a worker that is connected") == {0}
    assert capabilities(world, world.main_pid()) == {CAP_DAC_READ_SEARCH}

    status = world.wait_for_state("provisioned")
    certificate = world.identity()
    assert status["identity"]["certificate_id"] == certificate
    assert status["identity"]["thing_name"].startswith("gateway-")
    wait_for(lambda: machine.unit(TARGET, "ActiveState") == "active", TARGET)
    hooks_have_seen(world, certificate)
    assert hook_runs(world) == [f"{certificate} after "]
    said = machine.journal("-u", "claimd-hooks.service")
    assert any(line["MESSAGE"] == f"hook 10-log: says {status['identity']['thing_name']}" for line in said)
    assert certificate in machine.read("/var/spool/claimd/result/latest.txt")


def test_the_journal_has_fields_to_look_for(world: ContainerWorld) -> None:
    """By the field alone, as a fleet's monitoring finds it."""
    certificate = world.identity()
    wanted = (f"CLAIMD_CERTIFICATE_ID={certificate}", "CLAIMD_STAGE=active")
    found = wait_for(
        # The stage comes before the event.
        lambda: [each for each in world.machine.journal(*wanted) if "MESSAGE_ID" in each],
        "the event",
    )
    assert found[-1]["MESSAGE_ID"] == MessageId.PROVISIONED.value
    assert str(found[-1]["CLAIMD_THING_NAME"]).startswith("gateway-")
    assert (found[-1]["SYSLOG_IDENTIFIER"], found[-1]["_SYSTEMD_UNIT"]) == ("claimd", "claimd.service")


def test_the_claim_is_gone_and_the_key_is_in_its_one_place(world: ContainerWorld) -> None:
    assert world.machine.run("ls", "-A", DROP) == ""
    assert world.machine.run("ls", "-A", f"{STATE}/claims") == ""
    certificate = world.identity()
    assert world.keys_in("/var") + world.keys_in("/run") + world.keys_in("/tmp") == [
        f"/var/lib/aws-iot-device-client/keys/{certificate}-private.pem.key",
        f"{STATE}/identity/{certificate}/private.key",
    ]


def test_the_device_client_has_copies_of_its_own(world: ContainerWorld) -> None:
    machine = world.machine
    config = json.loads(machine.read("/etc/.aws-iot-device-client/aws-iot-device-client.conf"))
    assert machine.run("stat", "-c", "%a %U", config["key"], config["cert"]).splitlines() == [
        "600 root",
        "644 root",
    ]
    key = machine.read(f"{STATE}/identity/current/private.key")
    assert machine.read(config["key"]) == key
    wait_for(lambda: machine.unit("aws-iot-device-client", "ActiveState") == "active", "the device client")


def test_doctor_finds_the_device_well(world: ContainerWorld) -> None:
    """What it warns of is what a sandbox in a container is: no host of AWS, a clock that is not set, and
    the kernel's own settings, which are those of the machine around it."""
    said = json.loads(world.machine.run("sudo", "claimd", "doctor", "--json"))
    assert (said["summary"]["failed"], said["summary"]["ok"] > 40) == (0, True), said
    warned = {each["id"]: each["remedy"] for each in said["checks"] if each["verdict"] == "warning"}
    open_to_traps = world.machine.run("cat", "/proc/sys/fs/protected_regular") == "0\n"
    assert set(warned) == {"config-endpoint", "clock-ntp", *["drop-traps"] * open_to_traps}, warned
    assert all(warned.values())


def test_a_consumer_of_its_group_connects_and_others_do_not_read(world: ContainerWorld) -> None:
    machine = world.machine
    machine.run("useradd", "--system", "--groups", "claimd-identity", "application")
    machine.write("/opt/consumer.py", CONSUMER)
    machine.run("python3", "/opt/consumer.py", user="application")
    key = f"{STATE}/identity/current/private.key"
    for user in (TECHNICIAN, "nobody"):
        assert machine.attempt("cat", key, user=user).returncode != 0
    assert machine.run("stat", "-L", "-c", "%a %U %G", key) == "640 claimd claimd-identity\n"


def test_a_person_with_sudo_leaves_nothing_that_the_daemon_can_not_write(world: ContainerWorld) -> None:
    machine = world.machine
    machine.write("/etc/sudoers.d/technician", f"{TECHNICIAN} ALL=(ALL) NOPASSWD: ALL\n", 0o440)
    for command in ("provision", "status", "config show"):
        machine.attempt("sudo", "claimd", *command.split(), user=TECHNICIAN)
    found = machine.run(
        *("find", STATE, "/run/claimd", "/var/spool/claimd", "-ignore_readdir_race"),
        *("-user", "root", "-not", "-name", "dmi-serial"),
    )
    assert found.split() == ["/var/spool/claimd"]


# --- the sandbox of the service, from inside


def test_what_must_be_denied_is_denied(world: ContainerWorld) -> None:
    found = probe(world.machine)
    assert {name for name, outcome in found.items() if outcome == "done"} == ALLOWED, found


# --- restarts, crashes, power cuts


def test_reload_and_restart_change_nothing(world: ContainerWorld) -> None:
    before, pid, certificate = hook_runs(world), world.main_pid(), world.identity()
    world.machine.run("systemctl", "reload", "claimd")
    # "reloading" until claimd has said READY=1 after its RELOADING=1.
    wait_for(lambda: world.machine.unit("claimd.service", "SubState") == "running", "the reload's end")
    assert world.main_pid() == pid
    world.machine.run("systemctl", "restart", "claimd")
    assert world.main_pid() != pid
    assert world.wait_for_state("provisioned")["identity"]["certificate_id"] == certificate
    assert hook_runs(world) == before


def test_a_refusal_and_a_block_are_found_in_the_journal_by_their_ids(world: ContainerWorld) -> None:
    machine = world.machine
    world.forget()
    one, other = json.loads(world.sandbox.claim()), json.loads(world.sandbox.claim())
    world.scp(json.dumps({**one, "keyPair": other["keyPair"]}), "mixed.json")
    entry = wait_for(lambda: machine.journal(f"MESSAGE_ID={MessageId.REFUSED.value}"), "the refusal")[-1]
    assert (entry["CLAIMD_ERROR_CODE"], entry["PRIORITY"]) == ("claim-key-mismatch", "3")

    world.sandbox.fault("reject step=register status=400 times=1")
    world.scp(world.sandbox.claim(), "blocked.json")
    entry = wait_for(lambda: machine.journal(f"MESSAGE_ID={MessageId.BLOCKED.value}"), "the block")[-1]
    assert (entry["CLAIMD_ERROR_CODE"], entry["PRIORITY"]) == ("parameters-refused", "3")
    assert (entry["CLAIMD_STAGE"], entry["_SYSTEMD_UNIT"]) == ("blocked", "claimd.service")
    # A person has looked at it, so the claim that it kept is tried again.
    machine.run("sudo", "claimd", "provision", user=TECHNICIAN)
    world.wait_for_state("provisioned")
    machine.run("rm", f"{DROP}/mixed.json", user=TECHNICIAN)


@pytest.mark.parametrize("who", ["worker", "service"])
def test_killed_in_the_middle_of_an_attempt_it_loses_nothing(world: ContainerWorld, who: str) -> None:
    world.forget()
    before = {one["certificate_id"] for one in world.sandbox.certificates()}
    # Long enough to be killed in on a busy machine, shorter than what a worker waits for an answer.
    world.sandbox.fault("delay step=register when=after ms=9000 times=1")
    world.scp(world.sandbox.claim(), f"claim-{who}.json")
    wait_for(lambda: _is_registering(world), "the registration")
    worker, main = world.worker_pid(), world.main_pid()
    assert worker is not None
    world.machine.run("kill", "-9", str(worker if who == "worker" else main))
    world.wait_for_state("provisioned")
    if who == "service":
        assert world.main_pid() != main
    # Every certificate that became active in the cloud is here, with its key.
    fresh = [one for one in world.sandbox.certificates() if one["certificate_id"] not in before]
    active = {str(one["certificate_id"]) for one in fresh if one["status"] == "ACTIVE"}
    assert active == {world.identity()}
    world.machine.run("python3", "/opt/consumer.py", user="application")


def _is_registering(world: ContainerWorld) -> bool:
    """By the record itself: a Python that starts for every look is slow, and the time to kill in is short."""
    text = world.machine.run("cat", f"{STATE}/attempt.json", check=False)
    attempt = json.loads(text)["attempt"] if text else None
    return attempt is not None and attempt["state"] == "registering"


def test_the_watchdog_restarts_a_service_that_hangs(world: ContainerWorld) -> None:
    machine = world.machine
    machine.write(
        "/run/systemd/system/claimd.service.d/fast.conf", "[Service]\nWatchdogSec=4\nRestartSec=0\n"
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "claimd")
    main = world.main_pid()
    machine.run("kill", "-STOP", str(main))
    wait_for(lambda: world.main_pid() not in (0, main), "a new process")
    wait_for(lambda: machine.unit("claimd.service", "ActiveState") == "active", "the service")
    assert int(machine.unit("claimd.service", "NRestarts")) >= 1
    machine.run("rm", "-r", "/run/systemd/system/claimd.service.d")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "claimd")


def test_hooks_that_a_power_cut_ended_run_at_the_next_boot_only(world: ContainerWorld) -> None:
    machine, old = world.machine, world.identity()
    hooks_have_seen(world, old)
    machine.write("/etc/claimd/conf.d/60-replace.toml", 'reprovision = "replace"\n')
    machine.run("touch", "/root/hook-sleeps")
    before = hook_runs(world)
    world.scp(world.sandbox.claim(), "before-the-cut.json")
    wait_for(lambda: len(hook_runs(world)) > len(before), "a hook at work")
    certificate = world.identity()
    machine.cut_power()

    (machine.upper / "root/hook-sleeps").unlink()
    machine.boot()
    wait_for(lambda: machine.unit(TARGET, "ActiveState") == "active", TARGET)
    hooks_have_seen(world, certificate)
    after = hook_runs(world)
    assert after == [*before, *[f"{certificate} after {old}"] * 2]

    machine.stop()
    machine.boot()
    wait_for(lambda: machine.unit(TARGET, "ActiveState") == "active", TARGET)
    wait_for(
        lambda: machine.unit("claimd-hooks.service", "ExecMainExitTimestamp") != "", "the hooks' service"
    )
    assert hook_runs(world) == after


def test_hooks_that_a_power_cut_kept_from_starting_run_at_the_next_boot(world: ContainerWorld) -> None:
    """The identity has changed, and the power goes before the manager has seen it."""
    machine, old, before = world.machine, world.identity(), hook_runs(world)
    machine.run("systemctl", "stop", "claimd-hooks.path")
    world.scp(world.sandbox.claim(), "at-the-cut.json")
    wait_for(lambda: world.identity() != old, "the new identity")
    machine.cut_power()
    machine.boot()
    certificate = world.identity()
    hooks_have_seen(world, certificate)
    assert hook_runs(world) == [*before, f"{certificate} after {old}"]


def hooks_have_seen(world: ContainerWorld, certificate: str) -> None:
    """Both of them, and they rest."""
    wait_for(
        lambda: len(_seen(world)) == 2 and set(_seen(world).values()) == {certificate}, "both hooks' end"
    )
    wait_for(
        lambda: world.machine.unit("claimd-hooks.service", "ActiveState") == "inactive", "the hooks' rest"
    )


def _seen(world: ContainerWorld) -> dict[str, str]:
    text = world.machine.run("cat", "/var/lib/claimd-hooks/seen.json", check=False)
    seen: dict[str, str] = json.loads(text)["seen"] if text else {}
    return seen


# --- replacing


def test_a_second_claim_replaces_the_identity_and_the_hook_hears_of_both(world: ContainerWorld) -> None:
    old = world.identity()
    world.scp(world.sandbox.claim(), "second.json")
    wait_for(lambda: world.identity() != old, "the new identity")
    new = world.identity()
    hooks_have_seen(world, new)
    assert hook_runs(world)[-1] == f"{new} after {old}"
    world.machine.run("python3", "/opt/consumer.py", user="application")


def test_a_hook_that_failed_runs_again_by_itself_and_for_the_next_identity_at_once(
    world: ContainerWorld,
) -> None:
    machine, timer = world.machine, "claimd-hooks.timer"
    machine.run("touch", "/root/hook-fails")
    old = world.identity()
    world.scp(world.sandbox.claim(), "its-hook-fails.json")
    wait_for(lambda: machine.unit("claimd-hooks.service", "ActiveState") == "failed", "the hooks' failure")
    wait_for(lambda: machine.unit(timer, "ActiveState") == "active", timer)
    assert world.identity() != old

    # Stopping this one stops all of it.
    machine.run("systemctl", "stop", "claimd-hooks.path")
    assert machine.unit(timer, "ActiveState") == "inactive"
    machine.run("systemctl", "start", "claimd-hooks.path")
    machine.run("rm", "/root/hook-fails")
    world.scp(world.sandbox.claim(), "right-after-it.json")
    # Sooner than the timer's five minutes.
    wait_for(lambda: _seen(world)["10-log"] == world.identity(), "the new identity's hooks")
    hooks_have_seen(world, world.identity())
    wait_for(lambda: machine.unit(timer, "ActiveState") == "active", "one more look, for what came meanwhile")

    machine.write(
        f"/run/systemd/system/{timer}.d/fast.conf", "[Timer]\nOnActiveSec=\nOnActiveSec=2\nAccuracySec=1\n"
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", timer)
    wait_for(lambda: machine.unit(timer, "ActiveState") == "inactive", "one look that finds nothing to do")
    # The timer is stopped before the service is over.
    hooks_have_seen(world, world.identity())
    machine.run("touch", "/root/hook-fails")
    before = hook_runs(world)
    world.scp(world.sandbox.claim(), "the-last-of-them.json")
    wait_for(lambda: len(hook_runs(world)) > len(before) + 2, "a hook that fails and fails again")
    # With nothing left to do it rests.
    machine.run("rm", "/root/hook-fails")
    hooks_have_seen(world, world.identity())
    wait_for(lambda: machine.unit(timer, "ActiveState") == "inactive", f"the end of {timer}")
    machine.run("rm", "-r", f"/run/systemd/system/{timer}.d")
    machine.run("systemctl", "daemon-reload")


def test_a_folder_that_nobody_needs_is_destroyed_with_the_keys_in_it(world: ContainerWorld) -> None:
    """By root's small sweep: the daemon may set a technician's folder aside, but not empty it."""
    old = world.identity()
    world.scp(world.sandbox.claim(), "folder/claim.json")
    wait_for(lambda: world.identity() != old, "the new identity")
    wait_for(lambda: world.machine.run("ls", "-A", DROP) == "", "an empty drop directory")
    wait_for(lambda: world.keys_in("/var/spool") == [], "the end of the keys")
    world.wait_for_state("provisioned")


# --- the package's life


def test_upgrade_and_downgrade_keep_configuration_and_identity(world: ContainerWorld, tmp_path: Path) -> None:
    machine, certificate = world.machine, world.identity()
    mine = machine.read("/etc/claimd/claimd.toml") + "# edited by hand\n"
    machine.write("/etc/claimd/claimd.toml", mine)
    newer = repacked(world.package, "99.0", tmp_path)
    for package, options in ((newer, ()), (world.package, ("--allow-downgrades",))):
        pid = world.main_pid()
        world.install(package, *options)
        assert world.main_pid() not in (0, pid)
        assert world.wait_for_state("provisioned")["identity"]["certificate_id"] == certificate
        assert machine.read("/etc/claimd/claimd.toml") == mine
        assert machine.exists("/etc/claimd/conf.d/50-setup.toml")
    machine.run("python3", "/opt/consumer.py", user="application")


def test_removal_stops_the_service_and_leaves_what_others_stand_on(world: ContainerWorld) -> None:
    machine, certificate = world.machine, world.identity()
    machine.run("apt-get", "remove", "-y", "claimd")
    assert machine.unit("claimd.service", "ActiveState") in ("inactive", "failed")
    assert machine.attempt("pgrep", "-u", "claimd").returncode == 1
    assert world.identity() == certificate
    machine.run("python3", "/opt/consumer.py", user="application")
    assert not machine.exists("/usr/lib/claimd")
    world.install(world.package)
    assert world.wait_for_state("provisioned")["identity"]["certificate_id"] == certificate


def test_a_purge_leaves_the_identity_unless_it_was_asked_for(world: ContainerWorld) -> None:
    machine, certificate = world.machine, world.identity()
    said = machine.run("apt-get", "purge", "-y", "claimd")
    assert "the identity stays in /var/lib/claimd" in said
    assert world.identity() == certificate
    machine.run("python3", "/opt/consumer.py", user="application")
    assert not machine.exists("/etc/claimd/claimd.toml") and not machine.exists("/var/spool/claimd")

    world.install(world.package)
    machine.run("touch", "/etc/claimd/purge-identity")
    machine.run("apt-get", "purge", "-y", "claimd")
    assert not machine.exists(STATE) and not machine.exists("/etc/claimd/purge-identity")
    machine.run("getent", "group", "claimd-identity")
