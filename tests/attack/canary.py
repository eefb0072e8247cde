"""Where a key can be found: while a claim is at work in one place, after its destruction nowhere.

The claim's key and the identity's are looked for as PEM and as bare numbers: in every file that changed on
this machine, in what the daemon says, in the memory, the environment and the arguments of its processes.
That the search finds what is there shows in the worker's own memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from attack.permissions import TINA, TOM
from attack.siege import clear, start_afresh
from claimd_sandbox.faults import Fault
from premises import DROP, REPOSITORY, Premises, must, run, wait_for

# RegisterThing is answered so late that the worker can be stopped meanwhile, and looked at.
HELD_MILLISECONDS = 5_000
MAX_FILE_BYTES = 64 * 1024 * 1024
_CLAIMS, _IDENTITIES = Path("/var/lib/claimd/claims"), Path("/var/lib/claimd/identity")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Canary:
    """What a key looks like wherever it lies."""

    needles: tuple[bytes, ...]

    @classmethod
    def of(cls, pem: bytes) -> Canary:
        key = load_pem_private_key(pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        number = key.private_numbers().private_value.to_bytes(32, "big")
        # A line without its last characters: whatever wraps it leaves some of these runs whole.
        line = pem.splitlines()[1]
        return cls((number, line[:32], line[28:60]))

    def is_in(self, data: bytes) -> bool:
        text = data.replace(b"\0", b"")
        return any(needle in data or needle in text for needle in self.needles)


# What nobody here writes to: programs, and the tree that the tests themselves lie in.
_STILL = ("/proc", "/sys", "/usr", sys.prefix, sys.base_prefix, str(REPOSITORY.parent))


def _changed_files(since: Path) -> list[Path]:
    """Every file of this machine that was written since."""
    places = ("/", "/etc", "/home", "/tmp", "/run", "/var/lib", "/var/spool")
    still = [path for path in _STILL if not since.is_relative_to(path)]
    pruned = [word for path in still for word in ("-path", path, "-prune", "-o")]
    wanted = ("-newer", str(since), "-type", "f", "-size", f"-{MAX_FILE_BYTES}c", "-print0")
    # Others' files come and go meanwhile: find says so by its exit code.
    found = run("find", *places, "-xdev", *pruned, *wanted)
    names = {Path(os.fsdecode(name)) for name in found.stdout.split(b"\0") if name}
    assert since.parent / "journal" in names, found.stderr
    return sorted(names)


def _files_with(canary: Canary, since: Path) -> list[Path]:
    found = []
    for path in _changed_files(since):
        with contextlib.suppress(OSError):
            if canary.is_in(path.read_bytes()):
                found.append(path)
    return found


def _memory(pid: int) -> Iterator[bytes]:
    """All that the process can read of itself, with an overlap."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            addresses, rights = line.split()[:2]
            if "r" not in rights or line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            at, end = (int(word, 16) for word in addresses.split("-"))
            while at < end:
                with contextlib.suppress(OSError, ValueError):
                    memory.seek(at)
                    yield memory.read(min(_CHUNK + 64, end - at))
                at += _CHUNK


def _process_shows(canary: Canary, pid: int, *, memory: bool) -> list[str]:
    found = []
    for name in ("environ", "cmdline"):
        if canary.is_in(Path(f"/proc/{pid}/{name}").read_bytes()):
            found.append(name)
    if memory and any(canary.is_in(piece) for piece in _memory(pid)):
        found.append("mem")
    return found


def _worker(machine: Premises) -> int | None:
    daemon = machine.daemon
    assert daemon is not None
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    return int(children[0]) if children else None


class Search:
    """The run, step by step, and what went wrong."""

    def __init__(self, machine: Premises) -> None:
        self._machine = machine
        self._since = machine.directory / "since"
        self._since.touch()
        self._wrong: list[str] = []
        self._rows = 0
        time.sleep(0.05)  # a file's time has the clock's grain

    def run(self) -> list[str]:
        clear()
        start_afresh(self._machine)
        self._machine.sandbox.faults.set(
            Fault.parse(f"delay step=register ms={HELD_MILLISECONDS} when=before times=1")
        )
        before = self._machine.certificate_id()
        claim = self._drop()
        worker = wait_for(lambda: self._worker_at_register(), "a worker that registers")
        os.kill(worker, signal.SIGSTOP)
        self._while_at_work(claim, worker)
        os.kill(worker, signal.SIGSEGV)
        os.kill(worker, signal.SIGCONT)
        wait_for(lambda: _worker(self._machine) != worker, "the worker's end")
        cores = [path for path in _changed_files(self._since) if _is_core(path)]
        self._row("core files of a worker that crashed", [str(path) for path in cores], [])
        after = wait_for(lambda: self._new(before), "an identity after the crash")
        wait_for(lambda: _worker(self._machine) is None, "the last worker's end")
        self._afterwards(claim, Canary.of((_IDENTITIES / after / "private.key").read_bytes()), after)
        self._machine.sandbox.faults.clear()
        return self._wrong

    def _drop(self) -> Canary:
        claim = self._machine.sandbox.create_claim()
        outbox = Path("/dev/shm") / f"claimd-canary-{os.getpid()}"
        outbox.write_text(json.dumps(claim))
        outbox.chmod(0o644)
        must("cp", outbox, DROP / "claim.json", user=TINA)
        outbox.unlink()
        return Canary.of(claim["keyPair"]["PrivateKey"].encode())

    def _worker_at_register(self) -> int | None:
        attempt = Path("/var/lib/claimd/attempt.json")
        if not attempt.exists() or '"registering"' not in attempt.read_text():
            return None
        return _worker(self._machine)

    def _new(self, before: str | None) -> str | None:
        now = self._machine.certificate_id()
        return now if now != before else None

    def _while_at_work(self, claim: Canary, worker: int) -> None:
        daemon = self._machine.daemon
        assert daemon is not None
        files = [path for path in _files_with(claim, self._since) if _is_first_name(path)]
        places = sorted({str(path.parent.parent) for path in files})
        self._row("the claim's key, in files", places, [str(_CLAIMS)])
        self._row("  of these", [str(len(files))], ["1"])
        self._row("  in the worker", _process_shows(claim, worker, memory=True), ["mem"])
        self._row("  in the watcher", _process_shows(claim, daemon.pid, memory=True), [])
        denied = [
            name
            for name in ("mem", "environ", "maps")
            if run("head", "-c1", f"/proc/{worker}/{name}", user=TOM).returncode == 0
            or run("head", "-c1", f"/proc/{worker}/{name}", user="claimd").returncode == 0
        ]
        self._row("  of the worker, other processes read", denied, [])
        limits = Path(f"/proc/{worker}/limits").read_text()
        core = next(
            line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size")
        )
        self._row("  the worker's limit of a core file", core, ["0", "0"])

    def _afterwards(self, claim: Canary, identity: Canary, certificate_id: str) -> None:
        daemon = self._machine.daemon
        assert daemon is not None
        self._row("the claim's key after its destruction", _names(_files_with(claim, self._since)), [])
        self._row("  in the watcher", _process_shows(claim, daemon.pid, memory=True), [])
        key = str(_IDENTITIES / certificate_id / "private.key")
        found = [path for path in _files_with(identity, self._since) if _is_first_name(path)]
        self._row("the identity's key", _names(found), [key])
        self._row("  in the watcher", _process_shows(identity, daemon.pid, memory=True), [])

    def _row(self, what: str, found: Sequence[str], expected: Sequence[str]) -> None:
        self._rows += 1
        good = list(found) == list(expected)
        print(f"{what:<42} {', '.join(found) or 'nowhere'}{'' if good else '   WRONG'}", flush=True)
        if not good:
            self._wrong.append(f"{what.strip()}: {list(found)}, not {list(expected)}")


def _names(paths: Sequence[Path]) -> list[str]:
    return [str(path) for path in paths]


def _is_core(path: Path) -> bool:
    """By its contents (elf(5), ET_CORE): where a kernel puts it and how it calls it is a setting."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(18)
        return head[:4] == b"\x7fELF" and head[16:18] in (b"\x04\x00", b"\x00\x04")
    return False


def _is_first_name(path: Path) -> bool:
    """/var/lib is also seen where it really lies."""
    return not any(part.startswith("claimd-premises-") for part in path.parts)


def canary(machine: Premises) -> list[str]:
    """Prints where the keys were found; what went wrong."""
    return Search(machine).run()
