"""What an attacker puts into the drop directory of a running daemon, with an honest claim among it.

Each time the claim must become an identity, nothing of a secret or of a raw control character may come out,
and the daemon may not grow. `tom` attacks, `tina` is honest.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from attack.attacker import SECRETS, VAULT
from attack.permissions import AS_DAEMON, TINA, TOM
from attack.reader import CANARY
from claimd.pem import MAX_FILE_BYTES
from claimd.result import MAX_UNREAD_ANSWERS
from claimd_sandbox.registry import Status
from disfigure import ENCODINGS
from material import DEVICE_NOT_AFTER, pair
from premises import DROP, REPOSITORY, RESULT, Premises, files_below, must, run, wait_for, written

# Watcher and worker together may take what the unit grants them (MemoryMax=).
MAX_MEMORY_KIB = 192 * 1024
MAX_STATUS_BYTES = 256 * 1024
# latest.txt, and of a flood what nobody can have read yet.
MAX_RESULTS = MAX_UNREAD_ANSWERS + 1
_RAW = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")


def as_tom(script: str, *arguments: str | Path) -> None:
    """A Python script as the attacker, in the drop directory. He may link any file (see `races`)."""
    command = (
        *("setpriv", f"--reuid={TOM}", f"--regid={TOM}", "--init-groups"),
        *("--inh-caps=-all,+fowner", "--ambient-caps=-all,+fowner"),
        *(sys.executable, "-c", f"import os, subprocess, sys, socket\n{script}", *arguments),
    )
    must(*command, cwd=DROP)


def _symlinks() -> None:
    as_tom(
        "for number, target in enumerate(sys.argv[1:]): os.symlink(target, f'link-{number}.json')",
        *(*SECRETS, "/etc/shadow", "/dev/zero", "/proc/self/mem", "link-5.json", "."),
    )


def _hard_links() -> None:
    as_tom("for number, secret in enumerate(sys.argv[1:]): os.link(secret, f'link-{number}')", *SECRETS)


def _pipes_and_sockets() -> None:
    as_tom(
        "for number in range(20):\n    os.mkfifo(f'pipe-{number}')\n"
        "    socket.socket(socket.AF_UNIX).bind(f'socket-{number}')"
    )


def _devices() -> None:
    """Only root can make them; a careless `cp -a` does."""
    for name, numbers in (("zero", (1, 5)), ("full", (1, 7)), ("tty", (5, 0)), ("none", (240, 99))):
        os.mknod(DROP / name, 0o666 | stat.S_IFCHR, os.makedev(*numbers))
    os.mknod(DROP / "disk", 0o666 | stat.S_IFBLK, os.makedev(240, 99))


def _folders() -> None:
    as_tom(
        "os.makedirs('/'.join(['deep'] * 40))\n"
        "for folder in range(40): os.mkdir(f'folder-{folder}')\n"
        "os.mkdir('full')\n"
        "for number in range(500): open(f'full/{number}', 'w').write('junk')\n"
        "os.mkdir('links')\n"
        "os.symlink(sys.argv[1], 'links/claim.pem'); os.link(sys.argv[2], 'links/key.pem')\n"
        "os.mkdir('closed', 0)",
        *SECRETS,
    )


def _sparse_and_huge() -> None:
    as_tom(
        "os.truncate(os.open('sparse', os.O_CREAT | os.O_WRONLY), 1 << 40)\n"
        "open('huge', 'wb').write(b'-----BEGIN CERTIFICATE-----' * 4_000_000)\n"
        "os.truncate(os.open('zeros', os.O_CREAT | os.O_WRONLY), 65536)"
    )


def _bombs() -> None:
    """As large as a file may be, of what makes a careless parser slow."""
    pieces = (
        "{",
        "-----BEGIN ",
        "\\\\",
        "\\u00",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n",
        "[" * 9,
    )
    as_tom(
        "for number, piece in enumerate(sys.argv[1:]):\n"
        f"    for copy in range(20): open(f'bomb-{{number}}-{{copy}}', 'w').write((piece * {MAX_FILE_BYTES})"
        f"[:{MAX_FILE_BYTES}])",
        *pieces,
    )


NAMES = (
    *(
        "line\nbreak.json",
        "\x1b]0;title\x07.json",
        "\x1b[2J\x1b[31mred",
        "tab\there",
        "\u202egpj.exe",
        "\u2028",
    ),
    *(
        "-rf",
        "--help",
        "*",
        "$(reboot)",
        "`reboot`",
        "'quote\"",
        "%s%n",
        "{0}",
        "%(name)s",
        "a" * 255,
        "ä" * 127,
    ),
    *("\x7f", "\x9b31m", "\r\rREADY", " ", "  leading", "CON", "latest", "latest.txt", "..txt", "\u200b"),
)


_NO_TEXT = (b"\xff\xfe", b"\xc3(", b"\xed\xa0\x80", b"\x80" * 255)


def _names() -> None:
    as_tom(
        "for name in sys.argv[1:]: open(os.fsencode(name), 'w').write('junk of ' + repr(name))\n"
        f"for name in {_NO_TEXT!r}: open(name, 'w').write('junk')",
        *NAMES,
    )


def _forged_claims() -> None:
    """Certificates of the attacker's own making, for claims that live longer than any honest one."""
    now = datetime.now(timezone.utc)
    for number in range(5):
        made = pair(not_before=now, not_after=now + timedelta(hours=20))
        as_tom("open(sys.argv[1], 'w').write(sys.argv[2])", f"forged-{number}", made.certificate + made.key)
    permanent = pair(not_before=now, not_after=DEVICE_NOT_AFTER)
    as_tom("open('permanent', 'w').write(sys.argv[1])", permanent.certificate + permanent.key)


def _keys_of_no_claim() -> None:
    for number in range(20):
        as_tom("open(sys.argv[1], 'w').write(sys.argv[2])", f"key-{number}", pair().key)


def _directory_renamed() -> None:
    """By root: a restored backup, a careless hand."""
    os.rename(DROP, DROP.with_name("old"))
    must("systemd-tmpfiles", "--create", REPOSITORY / "packaging/tmpfiles.d/claimd.conf")


def _directory_removed_for_a_while() -> None:
    shutil.rmtree(DROP)
    time.sleep(0.5)  # the while itself
    must("systemd-tmpfiles", "--create", REPOSITORY / "packaging/tmpfiles.d/claimd.conf")


def _mounted_over() -> None:
    must("mount", "-t", "tmpfs", "-o", "mode=1777,uid=claimd,gid=claimd,size=1m", "tmpfs", DROP)


def _unmounted() -> None:
    must("umount", DROP)


TRAPS = ("honest claim.json", "claim.json", "private.key", "claim", "folder", "pipe.pem")


def _traps() -> None:
    """Names that others are expected to copy onto. They have to be gone before anybody can.

    Each gets its name when it is as open as it will be: a change of its mode alone wakes nobody.
    """
    as_tom(
        "os.umask(0)\n"
        "for number in range(3): open(f'.{number}', 'w').close()\n"
        "os.mkdir('.3', 0o777); os.mkdir('.4', 0o755); open('.4/private.key', 'w').close()\n"
        "os.mkfifo('.5', 0o666)\n"
        "made = [*(f'.{number}' for number in range(6)), '.4/private.key']\n"
        "subprocess.run(['setfacl', '-b', *made], check=True)\n"
        "for path in made: os.chmod(path, 0o755 if path == '.4' else 0o777)\n"
        "for number, name in enumerate(sys.argv[1:]): os.rename(f'.{number}', name)",
        *TRAPS,
    )
    wait_for(lambda: not set(TRAPS) & set(os.listdir(DROP)), lambda: f"traps gone: {os.listdir(DROP)}", 30.0)


PLANTS: Mapping[str, Callable[[], None]] = {
    "symbolic links": _symlinks,
    "hard links": _hard_links,
    "pipes, sockets": _pipes_and_sockets,
    "devices": _devices,
    "folders": _folders,
    "sparse, huge files": _sparse_and_huge,
    "parser bombs": _bombs,
    "hostile names": _names,
    "forged claims": _forged_claims,
    "keys of no claim": _keys_of_no_claim,
    "traps": _traps,
    "directory made anew": _directory_renamed,
    "directory removed": _directory_removed_for_a_while,
    "mounted over": _mounted_over,
    "unmounted again": _unmounted,
}
# These rows go on where the one before them ended.
_CONTINUES = {"unmounted again"}


@dataclass
class Watched:
    """The memory of a watcher and its workers, while something happens."""

    machine: Premises
    watcher_kib: int = 0
    worker_kib: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def during(self) -> Iterator[None]:
        thread = threading.Thread(target=self._sample, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _sample(self) -> None:
        while not self._over.wait(0.02):
            daemon = self.machine.daemon
            if daemon is None:
                continue
            self.watcher_kib = max(self.watcher_kib, _peak_kib(daemon.pid))
            for child in _children(daemon.pid):
                self.worker_kib = max(self.worker_kib, _peak_kib(child))


def _peak_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) if found else 0
    return 0


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def put_claim(machine: Premises, name: str, user: str) -> None:
    """An honest claim, dropped by `user` with cp."""
    text = json.dumps(machine.sandbox.create_claim(), indent=4)
    outbox = Path("/tmp/outbox")
    outbox.write_bytes(ENCODINGS["utf-8"](text))
    outbox.chmod(0o644)
    must("cp", outbox, DROP / name, user=user)
    outbox.unlink()


def provision(machine: Premises, name: str, user: str, seconds: float = 60.0) -> float:
    """Drops an honest claim; the seconds until it is an identity."""
    before = machine.certificate_id()
    began = time.monotonic()
    put_claim(machine, name, user)

    def provisioned() -> str | None:
        now = machine.certificate_id()
        return now if now != before else None

    found = wait_for(provisioned, lambda: f"an identity; problem: {machine.status().get('problem')}", seconds)
    certificate = machine.sandbox.registry.certificate(found)
    assert certificate is not None and certificate.status is Status.ACTIVE, found
    return time.monotonic() - began


def said(machine: Premises) -> Iterator[tuple[str, bytes]]:
    """Everything that the daemon says anywhere, by its place."""
    yield "journal", machine.journal.read_bytes()
    for place in (Path("/run/claimd"), RESULT):
        for path in files_below(place):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue  # an answer that made room
            yield str(path), data


def _complaints(machine: Premises, watched: Watched) -> list[str]:
    wrong = []
    for place, data in said(machine):
        if CANARY in data:
            wrong.append(f"{place} shows a secret")
        if _RAW.search(data):
            wrong.append(f"{place} holds a raw control character: {_RAW.search(data)}")
        if len(data) > MAX_STATUS_BYTES and place != "journal":
            wrong.append(f"{place} has {len(data):,} bytes")
    for directory in written():
        if directory == DROP.parent:
            continue  # the attackers' own
        if run("grep", "-rlaF", CANARY.decode(), directory).returncode == 0:
            wrong.append(f"a secret lies below {directory}")
    results = len(os.listdir(RESULT))
    if results > MAX_RESULTS:
        wrong.append(f"{results} answers in the result directory")
    memory = watched.watcher_kib + watched.worker_kib
    if memory > MAX_MEMORY_KIB:
        wrong.append(f"{memory:,} KiB of memory")
    if not watched.worker_kib:
        wrong.append("no worker was seen")
    return wrong


def start_afresh(machine: Premises) -> None:
    """No claims from the row before, and none of its haste: the watcher slows down when drops keep coming."""
    machine.stop_daemon()
    shutil.rmtree("/var/lib/claimd/claims", ignore_errors=True)
    Path("/var/lib/claimd/attempt.json").unlink(missing_ok=True)
    machine.start_daemon()


def clear() -> None:
    must("find", DROP, "-mindepth", "1", "-delete")
    old = DROP.with_name("old")
    if old.exists():
        shutil.rmtree(old)


def secrets() -> None:
    VAULT.mkdir(exist_ok=True)
    for secret in SECRETS:
        secret.write_bytes(CANARY)
        secret.chmod(0o600)
    shutil.chown(SECRETS[1], TINA, TINA)


def siege(machine: Premises, plants: Sequence[str]) -> list[str]:
    """Prints a row for each plant; what went wrong."""
    secrets()
    machine.start_sweeper()
    wrong = []
    print(f"{'in the drop directory':<24}{'identity after':>15}{'watcher':>10}{'worker':>10}")
    for plant in plants:
        if plant not in _CONTINUES:
            clear()
        start_afresh(machine)
        watched = Watched(machine)
        with watched.during():
            try:
                PLANTS[plant]()
                took = f"{provision(machine, 'honest claim.json', TINA):.1f} s"
            except AssertionError as error:
                took = "FAILED"
                wrong.append(f"{plant}: {error}")
        print(
            f"{plant:<24}{took:>15}{_mib(watched.watcher_kib):>10}{_mib(watched.worker_kib):>10}", flush=True
        )
        wrong += [f"{plant}: {each}" for each in _complaints(machine, watched)]
    wrong += _own_names(machine)
    clear()
    return wrong


def _own_names(machine: Premises) -> list[str]:
    """A claim under a hostile name is a claim all the same."""
    wrong = []
    for name in NAMES[:3]:
        clear()
        start_afresh(machine)
        try:
            took = provision(machine, name, TINA)
        except AssertionError as error:
            wrong.append(f"{name!r}: {error}")
            continue
        print(f"{ascii(name)[:23]:<24}{took:>13.1f} s   (the claim's own name)", flush=True)
    return wrong


def flood(machine: Premises, files: int) -> list[str]:
    """One account fills the directory; then two others' claims, and one of its own, come among it."""
    secrets()
    clear()
    start_afresh(machine)
    watched = Watched(machine)
    wrong = []
    before = machine.journal.stat().st_size
    with watched.during():
        began = time.monotonic()
        as_tom(
            "kinds = (b'', b'junk', b'{\"certificateId\": \"5a\"', b'-----BEGIN CERTIFICATE-----\\nMIIB')\n"
            f"for number in range({files}):\n"
            "    if number % 5 == 4: os.symlink(sys.argv[1], f'flood-{number}')\n"
            "    else:\n"
            "        file = open(f'flood-{number}\\n\\x1b[31m', 'wb', 0); file.write(kinds[number % 4])",
            SECRETS[0],
        )
        print(f"{files:,} files of tom's in {time.monotonic() - began:.1f} s", flush=True)
        for who, name in ((TINA, "claim.json"), (TOM, "flood-own")):
            try:
                print(f"  a claim of {who}'s among them: {provision(machine, name, who):.1f} s", flush=True)
            except AssertionError as error:
                wrong.append(f"{who}: {error}")
    left = sum(1 for _ in os.scandir(DROP))
    if left < files:
        wrong.append(f"{files - left} files are gone before their grace")
    looked = json.loads(
        must(*AS_DAEMON, sys.executable, "-m", "attack.reader", "2560", timeout=120).stdout.decode()
    )
    journal = machine.journal.stat().st_size - before
    print(
        f"  watcher {_mib(watched.watcher_kib)}, worker {_mib(watched.worker_kib)};"
        f" a look {looked['longest_cpu_seconds']:.2f} s of the processor; journal {journal:,} bytes"
    )
    if journal > MAX_STATUS_BYTES:
        wrong.append(f"{journal:,} bytes in the journal")
    wrong += _complaints(machine, watched)
    clear()
    return wrong


def _mib(kib: int) -> str:
    return f"{kib / 1024:.0f} MiB"
