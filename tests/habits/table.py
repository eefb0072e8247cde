"""`make habits`: every way of copying, with every shape of a claim, must end in an identity.

A table of clients × shapes; the first wrong cell is told at the end and makes it fail.
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import premises
from claimd_sandbox.registry import Status
from disfigure import ENCODINGS, RENDERINGS, Answer
from habits.clients import CLIENTS, NEEDED_TOOLS, OPTIONAL, TECHNICIAN, Errand, let_sudo
from premises import DROP, Premises, Sshd, files_below, wait_for, written

Files = Mapping[str, bytes]
# So many drops in a row never wait.
CELLS_A_WATCHER = 3


def _one(name: str, rendering: str, encoding: str = "utf-8") -> Callable[[Answer], Files]:
    return lambda answer: {name: ENCODINGS[encoding](RENDERINGS[rendering](answer))}


def _two_files(answer: Answer) -> Files:
    return {"claim.pem.crt": answer.certificate.encode(), "claim.pem.key": answer.private_key.encode()}


def _workshop(answer: Answer) -> Files:
    """The key in *.pem.crt, the certificate in *.pem.key, the line ends literal: as the workshop has it."""
    return {
        "bootstrap.pem.crt": answer.private_key.replace("\n", "\\n").encode(),
        "bootstrap.pem.key": answer.certificate.replace("\n", "\\n").encode(),
    }


SHAPES: Mapping[str, Callable[[Answer], Files]] = {
    "json v1": _one("claim.json", "json-v1"),
    "json v2": _one("claim", "json-v2"),
    "two pem": _two_files,
    "swapped": _workshop,
    "utf-16": _one("Anspruch für Gerät 7.txt", "json-v1", "utf-16-le-with-mark"),
    "yaml": _one("claim.yaml", "yaml"),
    "text": _one("Screenshot 2026-03-01 um 12.00.png", "text"),
}


class Habits:
    """One machine, on which one identity after the other is made."""

    def __init__(self, machine: Premises, sshd: Sshd) -> None:
        self._machine = machine
        self._sshd = sshd
        self._laptop = machine.directory / "laptop"
        self._cells = 0

    def cell(self, client: str, shape: str) -> str | None:
        """None, or what went wrong."""
        self._keep_it_quick()
        claim = self._machine.sandbox.create_claim()
        answer = Answer(
            claim["certificatePem"],
            claim["keyPair"]["PrivateKey"],
            claim["keyPair"]["PublicKey"],
            claim["certificateId"],
            claim["expiration"],
        )
        before = self._machine.certificate_id()
        errand = self._pack(SHAPES[shape](answer))
        try:
            CLIENTS[client](errand)
            after = wait_for(lambda: self._provisioned(before), self._why_not)
            self._assert_real(after)
            self._assert_gone(answer)
        except AssertionError as error:
            self._clear()
            return str(error)
        self._clear()
        return None

    def _keep_it_quick(self) -> None:
        """The watcher slows down when drops keep coming (agenda.HINT_DELAYS_SECONDS); a new one does not."""
        if self._cells % CELLS_A_WATCHER == 0:
            self._machine.stop_daemon()
            self._machine.start_daemon()
        self._cells += 1

    def _pack(self, files: Files) -> Errand:
        shutil.rmtree(self._laptop, ignore_errors=True)
        (self._laptop / "files").mkdir(parents=True)
        paths = []
        for name, data in files.items():
            path = self._laptop / "files" / name
            path.write_bytes(data)
            path.chmod(0o600)
            paths.append(path)
        return Errand(self._sshd, self._laptop, tuple(paths))

    def _provisioned(self, before: str | None) -> str | None:
        now = self._machine.certificate_id()
        return now if now != before else None

    def _why_not(self) -> str:
        status = self._machine.status()
        return (
            f"an identity; in the drop directory: {sorted(os.listdir(DROP))};"
            f" problem: {status.get('problem')}; drop: {status.get('drop')};"
            f" journal: {self._machine.journal.read_text(errors='replace')[-600:]}"
        )

    def _assert_real(self, certificate_id: str) -> None:
        found = self._machine.sandbox.registry.certificate(certificate_id)
        assert found is not None and found.status is Status.ACTIVE, f"{certificate_id} is not AWS's"

    def _assert_gone(self, answer: Answer) -> None:
        """The claim's key is in no file, neither as PEM nor as DER, below what the daemon or a copy wrote."""
        body = answer.private_key.splitlines()[1:-1]
        der = base64.b64decode("".join(body))
        needles = (body[1].encode(), der[40:80])

        def found() -> list[str]:
            return [f"{path}" for place in written() for path in files_below(place) if _holds(path, needles)]

        wait_for(lambda: not found(), lambda: f"the key's end; it still lies in {found()}")

    def _clear(self) -> None:
        """Nothing of one cell is left for the next."""
        for path in DROP.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        shutil.rmtree(DROP.parent.parent / "outbox", ignore_errors=True)


def _holds(path: Path, needles: Sequence[bytes]) -> bool:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    text = data.replace(b"\0", b"")
    return any(needle in data or needle in text for needle in needles)


def _inside(clients: Sequence[str], shapes: Sequence[str]) -> int:
    machine = Premises.open()
    sshd = Sshd.start(machine, premises.TECHNICIANS)
    machine.start_sweeper()
    let_sudo()
    habits = Habits(machine, sshd)
    width = max(len(client) for client in clients)
    print(f"{'':<{width}}  " + "  ".join(f"{shape:>8}" for shape in shapes), flush=True)
    wrong: list[str] = []
    for client in clients:
        print(f"{client:<{width}}  ", end="", flush=True)
        for shape in shapes:
            began = time.monotonic()
            why = habits.cell(client, shape)
            word = "FAILED" if why else f"{time.monotonic() - began:.1f} s"
            print(f"{word:>8}  ", end="", flush=True)
            if why:
                wrong.append(f"{client} × {shape}: {why}")
        print(flush=True)
    machine.close()
    print(f"{len(clients)} clients × {len(shapes)} shapes, each as {TECHNICIAN}: {len(wrong)} failed")
    for each in wrong:
        print(f"FAILED {each}", file=sys.stderr)
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--client", action="append", choices=list(CLIENTS), help="this one alone (repeatable)"
    )
    parser.add_argument("--shape", action="append", choices=list(SHAPES), help="this one alone (repeatable)")
    options = parser.parse_args()
    there = [name for name in CLIENTS if shutil.which(OPTIONAL.get(name, "sh"))]
    clients = options.client or there
    if premises.is_inside():
        return _inside(clients, options.shape or list(SHAPES))
    why = premises.missing(*NEEDED_TOOLS)
    if why is not None:
        print(f"cannot run: {why}", file=sys.stderr)
        return 1
    return premises.enter("habits.table", sys.argv[1:]).returncode


if __name__ == "__main__":
    sys.exit(main())
