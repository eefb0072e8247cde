"""What surrounds the machine, the sandbox and a technician, and what the package's tests ask of all three."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from device import DEADLINE_SECONDS, wait_for

TOP = Path(__file__).parents[2]
SERVER_NAME = "sandbox.test"
TECHNICIAN = "ubuntu"
STATE = "/var/lib/claimd"
DROP = "/var/spool/claimd/drop"


class Sandbox:
    """claimd-sandbox as a program, outside the device. `outside`: how to run a command there."""

    def __init__(self, outside: Callable[..., list[str]], address: str, directory: Path) -> None:
        self._outside = outside
        self.directory = directory
        command = [
            *("serve", "--dir", str(directory), "--host", address),
            *("--server-name", SERVER_NAME, "--no-limits"),
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
        return self._outside("env", f"PYTHONPATH={TOP / 'daemon'}", *module)

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
    def port(self) -> int:
        return int(json.loads((self.directory / "endpoint.json").read_text())["mqtt_port"])

    @property
    def authority(self) -> str:
        return (self.directory / "ca.pem").read_text()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()


class Device(Protocol):
    """A booted machine, whatever it is made of."""

    address: str
    ssh_port: int

    def outside(self, *command: str) -> list[str]:
        """A command that runs where the technician is."""

    def run(
        self, *command: str, user: str = ..., text: str | None = ..., check: bool = ..., seconds: float = ...
    ) -> str: ...

    def attempt(
        self, *command: str, user: str = ..., text: str | None = ..., seconds: float = ...
    ) -> subprocess.CompletedProcess[str]: ...

    def write(self, path: str, text: str | bytes, mode: int = ...) -> None: ...

    def read(self, path: str) -> str: ...

    def unit(self, name: str, member: str) -> str: ...


@dataclass
class World:
    machine: Device
    sandbox: Sandbox
    scratch: Path
    package: Path
    patience: float = DEADLINE_SECONDS

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
        """A real copy of a file that only its owner may read; a name with a folder copies the folder."""
        local = self.scratch / name
        local.parent.mkdir(exist_ok=True)
        local.write_text(text)
        local.chmod(0o600)
        top = self.scratch / Path(name).parts[0]
        target = f"{TECHNICIAN}@{self.machine.address}:{DROP}/"
        options = [
            "-P",
            str(self.machine.ssh_port),
            *self.ssh_options(),
            "-p",
            *(["-r"] if top.is_dir() else []),
        ]
        command = self.machine.outside("scp", *options, str(top), target)
        subprocess.run(command, check=True, timeout=120, capture_output=True)

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
        return self.machine.run(*apt, "/root/claimd.deb", seconds=1200)

    def set_up(self, address: str, more: str = "") -> str:
        """What a person types on day one, and what only a sandbox needs besides. `address`: where that is."""
        machine = self.machine
        machine.run("sh", "-c", f"echo '{address} {SERVER_NAME}' >>/etc/hosts")
        machine.write("/etc/claimd/sandbox-ca.pem", self.sandbox.authority)
        text = f'port = {self.sandbox.port}\nca_file = "/etc/claimd/sandbox-ca.pem"\n'
        machine.write("/etc/claimd/conf.d/60-sandbox.toml", text + more)
        return machine.run(
            *("claimd", "setup", "--endpoint", SERVER_NAME, "--template", "TrustedUserProvisioningTemplate"),
            *("--parameter", "ThingName=gateway-{machine-id}", "--technician", TECHNICIAN),
        )

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.machine.run("claimd", "status", "--json"))
        return document

    def wait_for_state(self, state: str) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            status = self.status()
            return status if status["state"] == state else None

        try:
            found: dict[str, Any] = wait_for(reached, f"state {state}", self.patience)
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
        """A device as it left the factory, but with its configuration. No hook is at work on what goes."""
        machine, hooks = self.machine, "claimd-hooks.service"
        self.sandbox.clear_faults()
        # With the paths: one of them starts the target, and with it the hooks, while `activated` is there.
        machine.run("systemctl", "stop", "claimd", "claimd-identity.path", "claimd-hooks.path")
        wait_for(lambda: machine.unit(hooks, "ActiveState") in ("inactive", "failed"), "the hooks' rest")
        machine.run("systemctl", "stop", "claimd-identity.target")
        gone = f"{STATE}/identity/* {STATE}/claims/* {STATE}/attempt.json {STATE}/activated"
        machine.run("sh", "-c", f"rm -rf {gone} {DROP}/* /run/claimd/status.json")
        machine.run("systemctl", "start", "claimd-identity.path", "claimd-hooks.path", "claimd")

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


def architecture() -> str:
    return subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()


def built_package(for_architecture: str | None = None) -> Path:
    """The newest that `make deb` made, for this machine unless said otherwise."""
    pattern = f"claimd_*_{for_architecture or architecture()}.deb"
    found = sorted((TOP / "dist").glob(pattern), key=os.path.getmtime)
    assert found, "build the package first: make deb"
    return found[-1]
