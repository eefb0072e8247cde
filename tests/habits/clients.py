"""How people copy: each client takes the same files from a laptop into the drop directory.

Every one is the real program, against the real sshd or as the technician on the device itself.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from premises import DROP, Sshd, must, run

TECHNICIAN = "tina"


@dataclass(frozen=True)
class Errand:
    """What is to be copied. `files` lie in the laptop's `directory` with mode 0600."""

    sshd: Sshd
    directory: Path
    files: tuple[Path, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(str(file) for file in self.files)

    @property
    def target(self) -> str:
        return f"{TECHNICIAN}@127.0.0.1:{DROP}/"

    def sftp(self, *lines: str) -> None:
        batch = self.directory / "batch"
        batch.write_text("\n".join(lines) + "\n")
        must(*self.sshd.sftp(TECHNICIAN, batch))

    def ssh(self, command: str, data: bytes | None = None) -> None:
        must(*self.sshd.ssh(TECHNICIAN, command), input=data or b"")

    def on_the_device(self) -> tuple[Path, ...]:
        """The same files, owned by the technician, in a directory beside the drop directory."""
        outbox = DROP.parent.parent / "outbox"
        outbox.mkdir(exist_ok=True)
        shutil.chown(outbox, TECHNICIAN, TECHNICIAN)
        copies = []
        for file in self.files:
            copy = outbox / file.name
            shutil.copy(file, copy)
            shutil.chown(copy, TECHNICIAN, TECHNICIAN)
            copy.chmod(0o600)
            copies.append(copy)
        return tuple(copies)


def quoted(path: Path | str) -> str:
    return "'" + str(path).replace("'", "'\\''") + "'"


def _scp(errand: Errand) -> None:
    must(*errand.sshd.scp(*errand.paths, errand.target))


def _scp_legacy(errand: Errand) -> None:
    must(*errand.sshd.scp("-O", *errand.paths, errand.target))


def _scp_preserving(errand: Errand) -> None:
    must(*errand.sshd.scp("-p", *errand.paths, errand.target))


def _scp_legacy_preserving(errand: Errand) -> None:
    must(*errand.sshd.scp("-O", "-p", *errand.paths, errand.target))


def _scp_lost(errand: Errand) -> None:
    """Wi-Fi is gone when the file has just been made; then the whole of it, once more."""
    _lose_the_link(errand)
    _scp(errand)


def _scp_legacy_lost(errand: Errand) -> None:
    _lose_the_link(errand, "-O")
    _scp_legacy(errand)


def _lose_the_link(errand: Errand, *options: str) -> None:
    for file in errand.files:
        there = DROP / file.name
        proxy = f"{sys.executable} -m habits.lost_link {errand.sshd.port} {quoted(there)}"
        words = errand.sshd.scp(*options, "-o", f"ProxyCommand={proxy}", str(file), errand.target)
        lost = run(*words)
        assert lost.returncode != 0, "the link was not lost"
        assert there.read_bytes() == b"", "the copy had not begun"


def _scp_folder(errand: Errand) -> None:
    must(*errand.sshd.scp("-r", str(errand.directory / "files"), errand.target))


def _scp_legacy_folder(errand: Errand) -> None:
    must(*errand.sshd.scp("-O", "-r", str(errand.directory / "files"), errand.target))


def _sftp_put(errand: Errand) -> None:
    errand.sftp(*[f'put "{file}" "{DROP}/{file.name}"' for file in errand.files])


def _sftp_put_and_rename(errand: Errand) -> None:
    lines = []
    for file in errand.files:
        lines += [f'put "{file}" "{DROP}/{file.name}.part"']
        lines += [f'rename "{DROP}/{file.name}.part" "{DROP}/{file.name}"']
    errand.sftp(*lines)


def _sftp_resumed(errand: Errand) -> None:
    """Half of it, a lost link, and the rest a moment later."""
    for file in errand.files:
        half = errand.directory / "half"
        half.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        errand.sftp(f'put "{half}" "{DROP}/{file.name}"')
        errand.sftp(f'reput "{file}" "{DROP}/{file.name}"')


def _winscp(errand: Errand) -> None:
    """Below 100 KiB WinSCP writes to the final name, then sets times; it lists before and after."""
    lines = [f'cd "{DROP}"', "ls -la"]
    for file in errand.files:
        lines += [f'put -p "{file}" "{file.name}"', "ls -la"]
    errand.sftp(*lines)


def _winscp_resumable(errand: Errand) -> None:
    """Above 100 KiB, or as people set it: `.filepart`, then a rename and the times."""
    lines = [f'cd "{DROP}"', "ls -la"]
    for file in errand.files:
        lines += [f'put -p "{file}" "{file.name}.filepart"']
        lines += [f'rename "{file.name}.filepart" "{file.name}"', "ls -la"]
    errand.sftp(*lines)


def _rsync(errand: Errand) -> None:
    must(*errand.sshd.rsync("-a", *errand.paths, errand.target))


def _rsync_inplace(errand: Errand) -> None:
    must(*errand.sshd.rsync("--inplace", "-t", *errand.paths, errand.target))


def _ssh_cat(errand: Errand) -> None:
    for file in errand.files:
        errand.ssh(f"cat > {quoted(DROP / file.name)}", file.read_bytes())


def _ssh_cat_in_pieces(errand: Errand) -> None:
    """A slow link."""
    for file in errand.files:
        command = f"cat > {quoted(DROP / file.name)}"
        slowly = f"{{ head -c 300; sleep 0.3; head -c 400; sleep 0.3; cat; }} < {quoted(file)}"
        words = " ".join(quoted(word) for word in errand.sshd.ssh(TECHNICIAN, command))
        must("sh", "-c", f"{slowly} | {words}")


def _cp(errand: Errand) -> None:
    must("cp", *errand.on_the_device(), DROP, user=TECHNICIAN)


def _mv(errand: Errand) -> None:
    """Within one file system: a rename, and no other event."""
    must("mv", *errand.on_the_device(), DROP, user=TECHNICIAN)


def let_sudo() -> None:
    """The technician may do everything, as the first user of an Ubuntu image may."""
    rule = Path("/etc/sudoers.d/technician")
    rule.parent.mkdir(exist_ok=True)
    rule.write_text(f"{TECHNICIAN} ALL=(ALL) NOPASSWD: ALL\n")
    rule.chmod(0o440)


def _sudo_cp(errand: Errand) -> None:
    must("sudo", "-n", "cp", *errand.on_the_device(), DROP, user=TECHNICIAN)


def _sudo_tee(errand: Errand) -> None:
    for file in errand.on_the_device():
        must("sudo", "-n", "tee", DROP / file.name, input=file.read_bytes(), user=TECHNICIAN)


def _editor(errand: Errand) -> None:
    """vi: a swap file, a probe called 4913, the old text renamed to `~`, the new one written and renamed."""
    for file in errand.on_the_device():
        name = quoted(file.name)
        must(
            "sh",
            "-c",
            f"cd {DROP} && : > .{name}.swp && : > 4913 && rm 4913 && : > {name} && mv {name} {name}~ &&"
            f" cat {quoted(file)} > {name}; rm -f .{name}.swp",
            user=TECHNICIAN,
        )


def _real_editor(errand: Errand) -> None:
    """vim itself writes the file, with a backup as some have it."""
    for file in errand.on_the_device():
        keys = ("-c", f"silent 0read {file}", "-c", "set backup", "-c", "silent write", "-c", "quit!")
        environment = {"HOME": f"/home/{TECHNICIAN}", "TERM": "dumb", "PATH": "/usr/bin:/bin"}
        vim = ("vim", "-n", "-es", "-u", "NONE", "-i", "NONE", *keys, str(DROP / file.name))
        run(*vim, user=TECHNICIAN, env=environment)


def _workshop(errand: Errand) -> None:
    """The workshop's next steps race the intake: sed -i makes a new file, chmod touches it."""
    _scp(errand)
    for file in errand.files:
        name = quoted(DROP / file.name)
        errand.ssh(f"sed -i 's/\\\\\\\\n/\\\\n/g' {name}; chmod 644 {name}; true")


def _minutes_apart(errand: Errand) -> None:
    """The last file first, and longer after it than a pass waits."""
    for file in reversed(errand.files):
        _scp(Errand(errand.sshd, errand.directory, (file,)))
        if file is not errand.files[0]:
            time.sleep(2.0)  # the technician himself, not a wait for claimd


CLIENTS: Mapping[str, Callable[[Errand], None]] = {
    "scp": _scp,
    "scp -O": _scp_legacy,
    "scp -p": _scp_preserving,
    "scp -O -p": _scp_legacy_preserving,
    "scp, link lost": _scp_lost,
    "scp -O, link lost": _scp_legacy_lost,
    "scp -r": _scp_folder,
    "scp -O -r": _scp_legacy_folder,
    "sftp put": _sftp_put,
    "sftp put, rename": _sftp_put_and_rename,
    "sftp put, resumed": _sftp_resumed,
    "WinSCP": _winscp,
    "WinSCP .filepart": _winscp_resumable,
    "rsync": _rsync,
    "rsync --inplace": _rsync_inplace,
    "ssh cat": _ssh_cat,
    "ssh cat, slow": _ssh_cat_in_pieces,
    "cp": _cp,
    "mv": _mv,
    "sudo cp": _sudo_cp,
    "sudo tee": _sudo_tee,
    "editor": _editor,
    "vim": _real_editor,
    "scp, sed -i, chmod": _workshop,
    "scp, minutes apart": _minutes_apart,
}
NEEDED_TOOLS = ("sshd", "ssh", "scp", "sftp", "rsync", "ssh-keygen", "ssh-keyscan", "sudo")
OPTIONAL = {"vim": "vim"}  # client: the program it needs
