"""A machine with systemd as its first process, booted in a container over a shared root file system.

    CACHE/rootfs-HASH/      made once by mmdebstrap; HASH is of the recipe: another recipe makes another one
    SCRATCH/upper, work     what this machine has changed, as an overlay on it

Everything is private to the machine: mounts in a mount namespace of its own, two network namespaces with a
cable between them, a control group. Invariant: when `stop` returns, only SCRATCH is left; nothing of the
host's was changed at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Of what a minimal image lacks: what a real device has and the package or the test needs.
_PACKAGES = (
    *(
        "ca-certificates",
        "dbus",
        "iproute2",
        "kmod",
        "libpam-systemd",
        "libseccomp2",
        "openssh-server",
        "procps",
    ),
    *("python3", "python3-systemd", "rsync", "sudo", "systemd", "systemd-sysv"),
)
_OPTIONS = (
    "--variant=minbase",
    "--format=directory",
    '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)
_OF_SYSTEMD = "systemd systemd-sysv libsystemd0 libpam-systemd udev libudev1"
BOOT_SECONDS = 120.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "/var/cache")) / "claimd-system-test"


def root_file_system(suite: str, architecture: str | None = None) -> Path:
    """Made when it is not there yet: half a minute; for another architecture, emulated, some minutes.

    `suite`: of Debian; "bookworm+bullseye" is bookworm with the systemd of bullseye.
    """
    options = [*_OPTIONS, "--include=" + ",".join(_PACKAGES)]
    if "+" in suite:
        preferences = (
            f"Package: {_OF_SYSTEMD}\\nPin: release n={suite.partition('+')[2]}\\nPin-Priority: 1001\\n"
        )
        options.append(f"""--setup-hook=printf '{preferences}' > "$1/etc/apt/preferences.d/systemd\"""")
    if architecture is not None:
        options.append(f"--architectures={architecture}")
    recipe = hashlib.sha256("\n".join((suite, *options)).encode()).hexdigest()[:16]
    target = cache() / f"rootfs-{suite}-{recipe}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        if architecture is not None:
            _enable_emulation()
        building = target.with_name(f".{target.name}.{os.getpid()}")
        mmdebstrap(suite, options, building)
        building.rename(target)
    return target


# The lists of a mirror that has stood still for a week are good enough for a machine that lives for minutes.
# (Debian's testing is the one whose lists expire. No part of the recipe: it installs nothing else.)
_ANY_AGE = '--aptopt=Acquire::Check-Valid-Until "false"'


def mmdebstrap(suite: str, options: Sequence[str], target: Path) -> None:
    """What it leaves after a failure is left alone here: something may still be mounted in there."""
    base, _, older = suite.partition("+")
    sources = [f"deb {_mirror()} {each} main" for each in (base, older)] if older else []
    command = ["mmdebstrap", "--quiet", *options, _ANY_AGE, base, str(target), *sources]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if ended.returncode != 0:
        print(ended.stderr, file=sys.stderr)
        # apt's own word is the first one that begins with E; mmdebstrap's at the end only says that it ended.
        errors = [line for line in ended.stderr.splitlines() if line.startswith("E: ")]
        cause = errors[0].removeprefix("E: ") if errors else f"exit code {ended.returncode}"
        raise MirrorError(suite, cause, target)


def _mirror() -> str:
    """The one that apt has on this host."""
    command = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[0]


class MirrorError(AssertionError):
    """No root file system could be made: nothing that was tested is at fault. In one line."""

    def __init__(self, suite: str, cause: str, remains: Path) -> None:
        super().__init__(
            f"no machine to test on, mmdebstrap could not make one of {suite}: {cause}; call make again when "
            f"apt's mirror can be reached, or `make system-test SUITE=` with what {cache()} holds already "
            f"({', '.join(_made()) or 'nothing'}); what was made of it lies in {remains}"
        )


def _made() -> list[str]:
    return sorted({one.name.split("-")[1] for one in cache().glob("rootfs-*-*")})


def _enable_emulation() -> None:
    """mmdebstrap runs the other architecture's programs by qemu, which the kernel has to know of."""
    registered = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
    if not registered.exists():
        if not registered.with_name("register").exists():
            subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(registered.parent)], check=True)
        subprocess.run(["update-binfmts", "--enable", "qemu-aarch64"], check=True)


class CommandError(AssertionError):
    """A command in the machine ended with another code than 0."""


@dataclass
class Network:
    """Two network namespaces and a cable: the device's and everybody else's."""

    name: str  # unique on this host

    # Documentation addresses (RFC 5737): nothing real can be meant.
    outside_address = "192.0.2.1"
    device_address = "192.0.2.2"

    @property
    def outside(self) -> str:
        return f"{self.name}-out"

    @property
    def device(self) -> str:
        return f"{self.name}-dev"

    def make(self) -> None:
        for namespace in (self.outside, self.device):
            _host("ip", "netns", "add", namespace)
        _host(
            *("ip", "link", "add", "eth0", "netns", self.device, "type", "veth"),
            *("peer", "name", "eth0", "netns", self.outside),
        )
        for namespace, address in ((self.outside, self.outside_address), (self.device, self.device_address)):
            inside = ("ip", "-n", namespace)
            _host(*inside, "address", "add", f"{address}/24", "dev", "eth0")
            _host(*inside, "link", "set", "eth0", "up")
            _host(*inside, "link", "set", "lo", "up")

    def remove(self) -> None:
        for namespace in (self.outside, self.device):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, stderr=subprocess.DEVNULL)

    def command(self, *command: str) -> list[str]:
        """A command that runs outside the device."""
        return ["ip", "netns", "exec", self.outside, *command]


def _host(*command: str) -> None:
    subprocess.run(command, check=True)


# In a mount namespace of its own: the overlay, and the unified control groups where systemd looks for them.
_BOOT = """
set -eu
mkdir -p "$SCRATCH/upper" "$SCRATCH/work" "$SCRATCH/root"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work" "$SCRATCH/root"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$NAME"
echo $$ >"/sys/fs/cgroup/$NAME/cgroup.procs"
exec systemd-nspawn --quiet -D "$SCRATCH/root" -M "$NAME" --register=no --keep-unit --notify-ready=yes -b \
    --console=read-only --kill-signal=SIGRTMIN+3 --network-namespace-path="/run/netns/$NETWORK" \
    --capability=CAP_BPF,CAP_NET_ADMIN,CAP_SYS_ADMIN --system-call-filter=bpf "$@"
"""


class Machine:
    ssh_port = 22

    def __init__(self, lower: Path, scratch: Path, network: Network) -> None:
        self._lower = lower
        self.scratch = scratch
        self.network = network
        self.address = network.device_address
        self._name = network.name
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    @property
    def upper(self) -> Path:
        """What the machine wrote, to look at or to prepare while it is off."""
        return self.scratch / "upper"

    def outside(self, *command: str) -> list[str]:
        return self.network.command(*command)

    def copied(self, scratch: Path) -> Machine:
        """Another machine in this one's place, with a copy of its disk. While this one is off."""
        scratch.mkdir()
        _host("cp", "-a", str(self.upper), str(scratch))
        return Machine(self._lower, scratch, self.network)

    def boot(self, *options: str) -> None:
        """Returns when the machine says that it has booted. `options`: systemd-nspawn's, besides."""
        address = self.scratch / "notify"
        address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(address))
            notify.settimeout(BOOT_SECONDS)
            environment = {
                "PATH": _PATH,
                "NOTIFY_SOCKET": str(address),
                "SCRATCH": str(self.scratch),
                "LOWER": str(self._lower),
                "NAME": self._name,
                "NETWORK": self.network.device,
            }
            with (self.scratch / "console").open("ab") as console:
                self._process = subprocess.Popen(
                    ["unshare", "-m", "--propagation", "private", "sh", "-c", _BOOT, "sh", *options],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                )
            said = ""
            while "READY=1" not in said.split():
                try:
                    said += notify.recv(4096).decode() + "\n"
                except TimeoutError:
                    raise AssertionError(
                        "the machine did not boot; see " + str(self.scratch / "console")
                    ) from None
        self._leader = int(said.split("X_NSPAWN_LEADER_PID=")[1].split()[0])

    def run(
        self,
        *command: str,
        user: str = "root",
        text: str | None = None,
        check: bool = True,
        seconds: float = 120,
    ) -> str:
        """Standard output. Raises CommandError."""
        ended = self.attempt(*command, user=user, text=text, seconds=seconds)
        if check and ended.returncode != 0:
            raise CommandError(f"{command}: exit code {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
        return ended.stdout

    def attempt(
        self, *command: str, user: str = "root", text: str | None = None, seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._inside(command, user),
            input=text or "",
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def _inside(self, command: Sequence[str], user: str) -> list[str]:
        become = [] if user == "root" else ["runuser", "-u", user, "--"]
        enter = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "--"]
        return [*enter, "env", "-i", f"PATH={_PATH}", "LANG=C.UTF-8", "HOME=/root", *become, *command]

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """Replace a file as an editor does: a new one, renamed."""
        data = text.encode() if isinstance(text, str) else text
        script = 'umask 077; mkdir -p "$(dirname "$1")"; cat >"$1.new"; chmod "$2" "$1.new"; mv "$1.new" "$1"'
        subprocess.run(
            self._inside(("sh", "-c", script, "sh", path, f"{mode:o}"), "root"), input=data, check=True
        )

    def read(self, path: str) -> str:
        return self.run("cat", path)

    def exists(self, path: str) -> bool:
        return self.attempt("test", "-e", path).returncode == 0

    def unit(self, name: str, member: str) -> str:
        return self.run("systemctl", "show", "--value", "-p", member, name).strip()

    def journal(self, *arguments: str) -> list[dict[str, object]]:
        """What was logged before this call is in it: --sync returns once journald has taken it in."""
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "--no-pager", "-o", "json", *arguments).splitlines()
        return [json.loads(line) for line in lines]

    def stop(self) -> None:
        """Shut down in order; by force when it takes too long."""
        self._end(signal.SIGTERM)

    def cut_power(self) -> None:
        """Every process of it dies at once. (Its disk is the host's: what was written stays written.)"""
        os.kill(self._leader, signal.SIGKILL)
        self._end(None)

    def _end(self, number: signal.Signals | None) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if number is not None:
            process.send_signal(number)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._remove_control_group()

    def _remove_control_group(self) -> None:
        script = (
            'mount -t cgroup2 cgroup2 /sys/fs/cgroup; test ! -d "/sys/fs/cgroup/$1" || '
            'find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} +'
        )
        end = time.monotonic() + 10
        while time.monotonic() < end:
            ended = subprocess.run(
                ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", self._name],
                capture_output=True,
                check=False,
            )
            if ended.returncode == 0:
                return
            time.sleep(0.1)


@contextlib.contextmanager
def scratch_directory(base: Path | None = None) -> Iterator[Path]:
    """On a disk: an overlay's upper layer can't be on another overlay, and /tmp may be small."""
    import tempfile

    path = Path(tempfile.mkdtemp(prefix="claimd-system-", dir=base or "/var/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
