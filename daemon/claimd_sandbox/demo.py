"""The demonstration, `make demo`: a claim made by the real `aws` command becomes a permanent identity.

Everything is real but AWS itself: programs of their own, TLS, MQTT, files. Invariant: however it ends, also
by Ctrl-C, every process that it started has ended and its temporary folder is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from claimd_sandbox.settings import ACCESS_KEY, REGION

# A pass takes a second; a slow board, starting everything cold, half a minute.
DEADLINE_SECONDS = 90.0
LOOK_SECONDS = 0.1
STOP_SECONDS = 10.0
THING = "demo-gateway-1"
SITE = f"""\
# What a site adds to the shared configuration.
[template.parameters]
ThingName = "{THING}"
"""


class DemoError(Exception):
    """Why the demonstration did not come to its end."""


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="claimd-demo-") as folder, contextlib.ExitStack() as running:
            _demonstrate(Path(folder), running)
    except DemoError as error:
        print(f"\nthe demo has failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; everything that was started is stopped and removed", file=sys.stderr)
        return 130
    print("\nNothing is left running, and the folder is removed.")
    return 0


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _demonstrate(folder: Path, running: contextlib.ExitStack) -> None:
    began = time.monotonic()
    _say(f"Everything here happens in {folder}")

    cloud = folder / "aws"
    sandbox = running.enter_context(_program("sandbox", folder, "claimd_sandbox", "serve", "--dir", cloud))
    _wait(lambda: _log(sandbox).startswith("ready"), sandbox, "the sandbox", folder)
    place = json.loads((cloud / "endpoint.json").read_text())
    _step(1, f"A stand-in for AWS IoT Core is running: MQTT over TLS on port {place['mqtt_port']}.")

    device = _Device(folder / "device", cloud / "claimd.toml")
    service = running.enter_context(_program("claimd", folder, "claimd", "--root", device.root, "run"))
    _wait(device.is_watching, service, "claimd", folder)
    _step(2, f"A device: claimd is running and watches {device.drop}")
    _show(device.claimd("status").splitlines()[:1])

    _step(3, "A trusted user makes a claim with the real aws command line. It lives five minutes.")
    claim = _create_claim(folder, place)

    _step(4, "A technician copies it in the most awkward shape: names swapped, literal \\n for line ends.")
    _show(_drop(device.drop, claim))
    dropped = time.monotonic()

    _wait(device.is_provisioned, service, "the identity", folder)
    _step(5, f"{time.monotonic() - dropped:.1f} s later the device has its permanent identity.")
    _show(device.claimd("status").splitlines())

    _step(6, "What is now on disk:")
    _show(_listing(device.root / "var" / "lib" / "claimd"))

    _step(7, "The claim is gone:")
    _show(_traces(device, claim))

    _step(8, "And AWS knows the device:")
    _show(_output("claimd_sandbox", "list", "--dir", cloud).splitlines())
    _say(f"\nDone in {time.monotonic() - began:.0f} s.")


# --- the device -------------------------------------------------------------------------------------


class _Device:
    """A machine below a folder, as `claimd --root` sees it."""

    def __init__(self, root: Path, configuration: Path) -> None:
        self.root = root
        self.drop = root / "var" / "spool" / "claimd" / "drop"
        for path in ("etc/claimd/conf.d", "var/lib/claimd/identity", "run/claimd"):
            (root / path).mkdir(parents=True)
        self.drop.mkdir(parents=True)
        # As the package has systemd-tmpfiles make it.
        (root / "var/lib/claimd").chmod(0o711)
        (root / "var/lib/claimd/identity").chmod(0o2750)
        shutil.copyfile(configuration, root / "etc" / "claimd" / "claimd.toml")
        (root / "etc" / "claimd" / "conf.d" / "50-site.toml").write_text(SITE)

    def claimd(self, *arguments: str) -> str:
        return _output("claimd", "--root", self.root, *arguments)

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.claimd("status", "--json"))
        return document

    def is_watching(self) -> bool:
        service = self.status()["service"]
        return service is not None and service["configuration"]["ok"]

    def is_provisioned(self) -> bool:
        status = self.status()
        if status["state"] in ("blocked", "refused"):
            raise DemoError("\n".join(self.claimd("status").splitlines()))
        return bool(status["state"] == "provisioned")


def _drop(directory: Path, claim: Mapping[str, Any]) -> list[str]:
    """As the AWS workshop tells: the key goes to *.pem.crt, the certificate to *.pem.key, with what `jq`
    makes of line ends. Returns how the files begin."""
    files = {
        "device-client-fp.pem.crt": claim["keyPair"]["PrivateKey"],
        "device-client-fp.private.pem.key": claim["certificatePem"],
    }
    shown = []
    for name, pem in files.items():
        (directory / name).write_text(pem.replace("\n", "\\n"))
        # The header line, and nothing of what is secret.
        shown.append(f"{name:<34}holds {pem.partition(chr(10))[0]}\\n...")
    return shown


def _traces(device: _Device, claim: Mapping[str, Any]) -> list[str]:
    """Proof that the claim is gone; DemoError if it is not."""
    for directory in (device.drop, device.root / "var" / "lib" / "claimd" / "claims"):
        if directory.is_dir() and list(directory.iterdir()):
            raise DemoError(f"{directory} is not empty: {sorted(p.name for p in directory.iterdir())}")
    # A line from the key's middle, as it would stand in a file of any of the shapes.
    secret = claim["keyPair"]["PrivateKey"].splitlines()[5].encode()
    files = [path for path in device.root.rglob("*") if path.is_file()]
    found = [path for path in files if secret in path.read_bytes()]
    if found:
        raise DemoError(f"the claim's key is still in {found}")
    return [
        "the drop directory is empty",
        f"its private key is in none of the {len(files)} files of the device",
    ]


def _listing(directory: Path) -> list[str]:
    """Modes and names, as `ls` shows them."""
    lines = []
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(directory))
        if stat.S_ISLNK(status.st_mode):
            name += f" -> {os.readlink(path)}"
        lines.append(f"{stat.filemode(status.st_mode)}  {name}")
    return lines


# --- the cloud --------------------------------------------------------------------------------------


def _create_claim(folder: Path, place: Mapping[str, Any]) -> Mapping[str, Any]:
    command = ["iot", "create-provisioning-claim", "--template-name", place["template"]]
    command += ["--endpoint-url", place["http_url"], "--output", "json"]
    _show([" ".join(["aws", *command])])
    aws = shutil.which("aws", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if aws is None:
        raise DemoError("there is no aws command: pip install 'claimd[sandbox]'")
    nowhere = str(folder / "no-such-file")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        # Not the account of whoever looks on.
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": "not-verified",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "*",
    }
    ended = subprocess.run([aws, *command], env=environment, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise DemoError(ended.stderr.strip())
    claim: dict[str, Any] = json.loads(ended.stdout)
    _show([f"certificateId {claim['certificateId']}"])
    return claim


# --- processes --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _program(name: str, folder: Path, module: str, *arguments: str | Path) -> Iterator[_Running]:
    """A long-running program, its output in a file; stopped at the end, at last by SIGKILL."""
    log = folder / f"{name}.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        yield _Running(process, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Running:
    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log


def _log(program: _Running) -> str:
    return program.log.read_text(errors="replace")


def _wait(condition: Callable[[], bool], program: _Running, what: str, folder: Path) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if program.process.poll() is not None:
            raise DemoError(f"{what}: the program has ended\n{_log(program)}")
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text(errors="replace") for path in sorted(folder.glob("*.log")))
            raise DemoError(f"{what}: not within {DEADLINE_SECONDS:g} s\n{logs}")
        time.sleep(LOOK_SECONDS)


def _output(module: str, *arguments: str | Path) -> str:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise DemoError(f"{' '.join(command)}\n{ended.stderr}")
    return ended.stdout


# --- the screen -------------------------------------------------------------------------------------


def _say(text: str) -> None:
    print(text, flush=True)


def _step(number: int, text: str) -> None:
    _say(f"\n{number}. {text}")


def _show(lines: list[str]) -> None:
    _say(textwrap.indent("\n".join(lines), "     "))


if __name__ == "__main__":
    sys.exit(main())
