"""An ARM64 machine, emulated whole: its own kernel, so every directive and every limit is in force.

    SCRATCH/disk     its disk, made from the root file system; kernel and initrd are the distribution's own

It is some fifteen times slower than the machine it runs on, so nothing here may depend on time. Invariant: it
needs no root for itself and touches nothing of the host's but a port on 127.0.0.1.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .machine import CommandError, cache, mmdebstrap

# What the distribution's kernel has as modules and this machine needs, in the order in which they go in.
_MODULES = (
    *("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"),
    *("failover", "net_failover", "virtio_net", "virtio-rng"),
)
_INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in %s; do /bin/busybox insmod /$module.ko; done
until test -b /dev/vda; do /bin/busybox sleep 0.1; done
/bin/busybox mount -t ext4 /dev/vda /root
exec /bin/busybox switch_root /root /sbin/init
"""
BOOT_SECONDS = 600.0
# The host's 127.0.0.1, as qemu's user network shows it to the guest.
HOST = "10.0.2.2"

_MASKED = (
    *(
        "serial-getty@ttyAMA0.service",
        "systemd-networkd.service",
        "e2scrub_all.timer",
        "e2scrub_reap.service",
    ),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer", "man-db.timer"),
)
_ADDRESS = "ip link set lo up; ip link set eth0 up; ip address add 10.0.2.15/24 dev eth0"
_NETWORK = f"""\
[Unit]
Description=The one address
Before=network.target ssh.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c '{_ADDRESS}; ip route add default via {HOST}'
[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class Kernel:
    image: Path
    initrd: Path


def kernel(suite: str) -> Kernel:
    """The distribution's, unpacked, not installed: making its own initrd there takes a quarter of an hour."""
    recipe = hashlib.sha256("\n".join((suite, _INIT, *_MODULES)).encode()).hexdigest()[:16]
    place = cache() / f"kernel-{suite}-arm64-{recipe}"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as name:
            root, new = Path(name) / "root", Path(name) / "new"
            options = ("--variant=extract", "--format=directory", "--architectures=arm64")
            mmdebstrap(suite, [*options, "--include=linux-image-cloud-arm64,busybox-static"], root)
            new.mkdir()
            shutil.copy(next((root / "boot").glob("vmlinuz-*")), new / "vmlinuz")
            _make_initrd(root, Path(name) / "initrd", new / "initrd.img")
            new.rename(place)
    return Kernel(place / "vmlinuz", place / "initrd.img")


def _make_initrd(root: Path, place: Path, target: Path) -> None:
    for folder in ("bin", "dev", "root"):
        (place / folder).mkdir(parents=True)
    shutil.copy(root / "bin/busybox", place / "bin")
    for module in _MODULES:
        shutil.copy(next((root / "lib/modules").rglob(f"{module}.ko")), place)
    (place / "init").write_text(_INIT % " ".join(_MODULES))
    (place / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(place)) for path in sorted(place.rglob("*")))
    with target.open("wb") as image:
        subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc"], cwd=place, input=names.encode(), stdout=image, check=True
        )


class EmulatedMachine:
    address = "127.0.0.1"

    def __init__(self, lower: Path, boot: Kernel, scratch: Path) -> None:
        self._boot = boot
        self.scratch = scratch
        self._lower = lower
        self._process: subprocess.Popen[bytes] | None = None
        self.ssh_port = _free_port()
        self._key = scratch / "root-key"

    def outside(self, *command: str) -> list[str]:
        return list(command)

    def boot(self) -> None:
        self._make_disk()
        self._process = subprocess.Popen(
            [
                *("qemu-system-aarch64", "-M", "virt,gic-version=3", "-cpu", "cortex-a72", "-smp", "2"),
                *("-accel", "tcg,thread=multi", "-m", "2048", "-display", "none", "-nodefaults"),
                *("-serial", f"file:{self.scratch / 'console'}"),
                *("-kernel", str(self._boot.image), "-initrd", str(self._boot.initrd)),
                *("-append", "console=ttyAMA0 net.ifnames=0 systemd.show_status=no"),
                *("-drive", f"if=virtio,format=raw,cache=unsafe,file={self.scratch / 'disk'}"),
                *("-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{self.ssh_port}-:22"),
                *("-device", "virtio-net-pci,netdev=n,romfile=", "-device", "virtio-rng-pci"),
            ],
            stdin=subprocess.DEVNULL,
        )
        end = time.monotonic() + BOOT_SECONDS
        while self.attempt("true").returncode != 0:
            if self._process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the machine did not boot; see {self.scratch / 'console'}")
            time.sleep(2)

    def _make_disk(self) -> None:
        root = self.scratch / "root"
        subprocess.run(["cp", "-a", "--reflink=auto", str(self._lower), str(root)], check=True)
        units = root / "etc/systemd/system"
        for name in _MASKED:
            (units / name).unlink(missing_ok=True)
            (units / name).symlink_to("/dev/null")
        (units / "one-address.service").write_text(_NETWORK)
        wanted = units / "multi-user.target.wants"
        wanted.mkdir(exist_ok=True)
        (wanted / "one-address.service").symlink_to("/etc/systemd/system/one-address.service")
        (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
        (root / "etc/hostname").write_text("arm\n")
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 arm\n")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._key)], check=True)
        (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        (root / "root/.ssh/authorized_keys").write_text(self._key.with_suffix(".pub").read_text())
        disk = self.scratch / "disk"
        subprocess.run(["mkfs.ext4", "-q", "-F", "-d", str(root), str(disk), "3G"], check=True)
        shutil.rmtree(root)

    def _ssh(self, command: Iterable[str]) -> list[str]:
        return [
            *("ssh", "-F", "none", "-i", str(self._key), "-p", str(self.ssh_port), "-o", "LogLevel=ERROR"),
            *(
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "ConnectTimeout=30",
            ),
            # One connection for all: a handshake alone takes seconds there.
            *(
                "-o",
                "ControlMaster=auto",
                "-o",
                f"ControlPath={self.scratch / 'ssh'}",
                "-o",
                "ControlPersist=600",
            ),
            *("root@127.0.0.1", shlex.join(command)),
        ]

    def run(
        self,
        *command: str,
        user: str = "root",
        text: str | None = None,
        check: bool = True,
        seconds: float = 600,
    ) -> str:
        """Standard output. Raises CommandError."""
        ended = self.attempt(*command, user=user, text=text, seconds=seconds)
        if check and ended.returncode != 0:
            raise CommandError(f"{command}: exit code {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
        return ended.stdout

    def attempt(
        self, *command: str, user: str = "root", text: str | None = None, seconds: float = 600
    ) -> subprocess.CompletedProcess[str]:
        become = () if user == "root" else ("runuser", "-u", user, "--")
        return subprocess.run(
            self._ssh((*become, *command)),
            input=text or "",
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        data = text.encode() if isinstance(text, str) else text
        script = 'umask 077; mkdir -p "$(dirname "$1")"; cat >"$1.new"; chmod "$2" "$1.new"; mv "$1.new" "$1"'
        command = ("sh", "-c", script, "sh", path, f"{mode:o}")
        subprocess.run(self._ssh(command), input=data, check=True)

    def read(self, path: str) -> str:
        return self.run("cat", path)

    def unit(self, name: str, member: str) -> str:
        return self.run("systemctl", "show", "--value", "-p", member, name).strip()

    def stop(self) -> None:
        """By force: the disk is thrown away."""
        subprocess.run([*self._ssh(())[:-1], "-O", "exit"], check=False, capture_output=True)
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
