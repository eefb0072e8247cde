"""What surrounds the machine, the sandbox and a technician, and what the package's tests ask of all three."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device import wait_for

from .machine import Machine, Network

TOP = Path(__file__).parents[2]
SERVER_NAME = "sandbox.test"
MQTT_PORT = 8883
TECHNICIAN = "ubuntu"
STATE = "/var/lib/claimd"
DROP = "/var/spool/claimd/drop"


class Sandbox:
    """claimd-sandbox as a program, outside the device."""

    def __init__(self, network: Network, directory: Path) -> None:
        self._network = network
        self.directory = directory
        command = [
            *("serve", "--dir", str(directory), "--host", network.outside_address),
            *("--server-name", SERVER_NAME, "--mqtt-port", str(MQTT_PORT), "--no-limits"),
        ]
        self._log = (directory.parent / "sandbox.log").open("w")
        self._process = subprocess.Popen(
            self._command(*command), stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert "ready" in line, line

    def _command(self, *arguments: str) -> list[str]:
        module = [sys.executable, "-m", "claimd_sandbox", *arguments]
        return self._network.command("env", f"PYTHONPATH={TOP / 'daemon'}", *module)

    def run(self, command: str, *arguments: str) -> str:
        return subprocess.run(
            self._command(command, "--dir", str(self.directory), *arguments),
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def claim(self) -> str:
        return self.run("claim")

    def certificates(self) -> list[dict[str, Any]]:
        """Every certificate but the claims', as the cloud knows it."""
        found: list[dict[str, Any]] = json.loads(self.run("list", "--json"))["certificates"]
        return found

    def fault(self, words: str) -> None:
        self.run("fault", "set", words)

    def clear_faults(self) -> None:
        self.run("fault", "clear")

    @property
    def authority(self) -> str:
        return (self.directory / "ca.pem").read_text()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()


@dataclass
class World:
    machine: Machine
    sandbox: Sandbox
    scratch: Path
    package: Path

    # --- the technician, outside

    def ssh_options(self) -> list[str]:
        return [
            *(
                "-i",
                str(self.scratch / "technician"),
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "LogLevel=ERROR",
            ),
            *("-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-F", "none"),
        ]

    def scp(self, text: str, name: str = "claim.json") -> None:
        """A real copy of a file that only its owner may read."""
        local = self.scratch / name
        local.write_text(text)
        local.chmod(0o600)
        target = f"{TECHNICIAN}@{self.machine.network.device_address}:{DROP}/"
        command = self.machine.network.command("scp", *self.ssh_options(), "-p", str(local), target)
        subprocess.run(command, check=True, timeout=60, capture_output=True)

    # --- the device

    def make_technician(self) -> None:
        """The stock user of an Ubuntu image, with a key and without any group of claimd's."""
        key = self.scratch / "technician"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        run = self.machine.run
        run("useradd", "--create-home", "--shell", "/bin/bash", TECHNICIAN)
        run("install", "-d", "-m", "700", "-o", TECHNICIAN, "-g", TECHNICIAN, f"/home/{TECHNICIAN}/.ssh")
        public = key.with_suffix(".pub").read_text()
        self.machine.write(f"/home/{TECHNICIAN}/.ssh/authorized_keys", public)
        run("chown", f"{TECHNICIAN}:{TECHNICIAN}", f"/home/{TECHNICIAN}/.ssh/authorized_keys")

    def install(self, package: Path, *options: str) -> str:
        self.machine.write("/root/claimd.deb", package.read_bytes())
        apt = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", *options)
        return self.machine.run(*apt, "/root/claimd.deb", seconds=300)

    def configuration(self, more: str = "") -> str:
        return (
            f'endpoint = "{SERVER_NAME}"\nport = {MQTT_PORT}\n'
            f'ca_file = "/etc/claimd/sandbox-ca.pem"\n{more}\n'
            '[template]\nname = "TrustedUserProvisioningTemplate"\n'
            '[template.parameters]\nThingName = "gateway-{machine-id}"\n'
        )

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.machine.run("claimd", "status", "--json"))
        return document

    def wait_for_state(self, state: str) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            status = self.status()
            return status if status["state"] == state else None

        try:
            found: dict[str, Any] = wait_for(reached, f"state {state}")
        except AssertionError as error:
            told = self.machine.run("journalctl", "-b", "--no-pager", "-n", "60")
            raise AssertionError(f"{error}\n{json.dumps(self.status(), indent=1)}\n{told}") from None
        return found

    def identity(self) -> str:
        """The certificate id of the identity in force."""
        return self.machine.run("readlink", f"{STATE}/identity/current").strip()

    def main_pid(self) -> int:
        return int(self.machine.unit("claimd.service", "MainPID"))

    def worker_pid(self) -> int | None:
        supervisor = json.loads(self.machine.read("/run/claimd/supervisor.json"))
        worker = supervisor["worker"]
        return None if worker is None else int(worker["pid"])

    def forget(self) -> None:
        """A device as it left the factory, but with its configuration."""
        self.machine.run("systemctl", "stop", "claimd", "claimd-identity.target")
        self.machine.run(
            "sh", "-c", f"rm -rf {STATE}/identity/* {STATE}/claims/* {STATE}/attempt.json {STATE}/activated"
        )
        self.machine.run("systemctl", "start", "claimd")

    def python(self, program: str, *arguments: str, user: str = "root") -> str:
        """A program of the test's in the machine, by its own Python."""
        return self.machine.run("python3", "-", *arguments, user=user, text=program)

    def keys_in(self, path: str) -> list[str]:
        """Files below a path that hold a private key."""
        found = self.machine.run("grep", "-rlE", "PRIVATE KEY", path, check=False)
        return sorted(found.splitlines())


def repacked(package: Path, version: str, scratch: Path) -> Path:
    """The same package as another version of it."""
    place = scratch / f"repacked-{version}"
    subprocess.run(["dpkg-deb", "-R", str(package), str(place)], check=True)
    control = place / "DEBIAN/control"
    lines = control.read_text().splitlines()
    control.write_text(
        "\n".join(f"Version: {version}" if x.startswith("Version:") else x for x in lines) + "\n"
    )
    target = scratch / f"claimd_{version}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", str(place), str(target)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return target


def quoted(*words: str) -> str:
    return " ".join(shlex.quote(word) for word in words)


def architecture() -> str:
    return subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()


def built_package() -> Path:
    """The newest that `make deb` made for this machine."""
    found = sorted((TOP / "dist").glob(f"claimd_*_{architecture()}.deb"), key=os.path.getmtime)
    assert found, "build the package first: make deb"
    return found[-1]
