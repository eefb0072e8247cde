"""The two kinds of accounts that can only drop (packaging/sshd), against a real sshd: what each can do."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import premises
from disfigure import RENDERINGS, Answer
from premises import DROP, REPOSITORY, RESULT, TECHNICIANS, Premises, Sshd, must, run, wait_for

SFTP, SCP = "una", "uli"
PACKAGED = REPOSITORY / "packaging/sshd"
TOM = TECHNICIANS[1]

# What an account of the group claimd-upload, and one of claimd-upload-scp, can do.
EXPECTED = """
act                           claimd-upload   claimd-upload-scp
scp                           identity        no
scp -p                        identity        no
scp -r                        identity        no
scp -O                        no              identity
scp -O -p                     no              identity
scp -O -r                     no              identity
scp -O to another path        no              identity
sftp put                      identity        no
WinSCP                        identity        no
WinSCP .filepart              identity        no
ssh claimd put                no              identity
read the answer by sftp       yes             no
read the answer by ssh        no              yes
read another's file           no              no
read /etc/passwd              no              no
scp -O a file away            no              no
run a command                 no              no
get a shell                   no              no
remove a file                 no              no
make a symbolic link          no              no
make a hard link              no              no
write beside drop/            no              no
write into result/            no              no
forward a port                no              no
""".strip()


@dataclass(frozen=True)
class Account:
    """One account and what it copies: a claim in a file, and in a folder."""

    name: str
    sshd: Sshd
    laptop: Path

    @property
    def claim(self) -> Path:
        return self.laptop / "files" / "claim.json"

    def does(self, *command: str, data: bytes = b"") -> bool:
        return run(*command, input=data, cwd=self.laptop).returncode == 0

    def at(self, path: str) -> str:
        return f"{self.name}@127.0.0.1:{path}"

    def scp(self, *words: str) -> bool:
        return self.does(*self.sshd.scp(*words))

    def sftp(self, *lines: str) -> bool:
        batch = self.laptop / "batch"
        batch.write_text("\n".join(lines) + "\n")
        return self.does(*self.sshd.sftp(self.name, batch))

    def ssh(self, *command: str, data: bytes = b"", must_say: bytes = b"") -> bool:
        done = run(*self.sshd.ssh(self.name, *command), input=data)
        return done.returncode == 0 and must_say in done.stdout

    def has(self, name: str, words: bytes) -> bool:
        """Whether a download has brought what it should not, or should."""
        path = self.laptop / name
        return path.exists() and words in path.read_bytes()


def _forwards(account: Account) -> bool:
    """Whether a connection through the device reaches its own sshd."""
    port = str(account.sshd.port)
    command = account.sshd.ssh(account.name)
    return run(*command[:-1], "-W", f"127.0.0.1:{port}", command[-1], input=b"x\n").stdout.startswith(b"SSH-")


def _says_the_answer(account: Account, command: str) -> bool:
    return account.ssh(command, must_say=(RESULT / "latest.txt").read_bytes())


def _writes_beside(account: Account) -> bool:
    account.sftp(f"put {account.claim} /new")
    account.scp("-O", str(account.claim), account.at("/var/spool/claimd/new"))
    account.scp("-O", str(account.claim), account.at("../new"))
    return DROP.with_name("new").exists()


# These end in an identity when they are allowed.
DROPS: Mapping[str, Callable[[Account], bool]] = {
    "scp": lambda a: a.scp(str(a.claim), a.at("")),
    "scp -p": lambda a: a.scp("-p", str(a.claim), a.at("")),
    "scp -r": lambda a: a.scp("-r", str(a.claim.parent), a.at("")),
    "scp -O": lambda a: a.scp("-O", str(a.claim), a.at("")),
    "scp -O -p": lambda a: a.scp("-O", "-p", str(a.claim), a.at("")),
    "scp -O -r": lambda a: a.scp("-O", "-r", str(a.claim.parent), a.at("")),
    "scp -O to another path": lambda a: a.scp("-O", str(a.claim), a.at("/etc/cron.d/x$(reboot)")),
    "sftp put": lambda a: a.sftp(f"put {a.claim}"),
    "WinSCP": lambda a: a.sftp("ls -la", f"put -p {a.claim} claim.json", "chmod 644 claim.json", "ls -la"),
    "WinSCP .filepart": lambda a: a.sftp(
        f"put -p {a.claim} claim.json.filepart", "rename claim.json.filepart claim.json", "ls -la"
    ),
    "ssh claimd put": lambda a: a.ssh("claimd put", data=a.claim.read_bytes()),
}
ACTS: Mapping[str, Callable[[Account], bool]] = {
    "read the answer by sftp": lambda a: (
        a.sftp("get /result/latest.txt got") and a.has("got", b"") and (a.laptop / "got").stat().st_size > 0
    ),
    "read the answer by ssh": lambda a: _says_the_answer(a, "") and _says_the_answer(a, "claimd ready"),
    "read another's file": lambda a: a.sftp("get /drop/other got") or a.ssh(f"cat {DROP}/other"),
    "read /etc/passwd": lambda a: (
        a.sftp("get /etc/passwd got") or a.sftp("get ../../../etc/passwd got") or a.ssh("cat /etc/passwd")
    ),
    "scp -O a file away": lambda a: (
        a.scp("-O", a.at("/etc/passwd"), "got") or a.scp("-O", a.at("../result/latest.txt"), "got")
    ),
    "run a command": lambda a: (
        a.ssh("id", must_say=b"uid=") or a.ssh("scp -t .; id", must_say=b"uid=") or a.ssh("claimd put; id")
    ),
    "get a shell": lambda a: a.ssh("-tt", data=b"id\nexit\n", must_say=b"uid="),
    "remove a file": lambda a: a.sftp("rm /drop/own") or a.ssh(f"rm {DROP}/own"),
    "make a symbolic link": lambda a: a.sftp("symlink /etc/shadow /drop/link"),
    "make a hard link": lambda a: a.sftp("ln /drop/own /drop/link"),
    "write beside drop/": _writes_beside,
    "write into result/": lambda a: a.sftp(f"put {a.claim} /result/new"),
    "forward a port": _forwards,
}


def _pack(machine: Premises) -> Path:
    claim = machine.sandbox.create_claim()
    pair = claim["keyPair"]
    answer = Answer(
        claim["certificatePem"], pair["PrivateKey"], pair["PublicKey"], claim["certificateId"], 0.0
    )
    laptop = machine.directory / "laptop"
    shutil.rmtree(laptop, ignore_errors=True)
    (laptop / "files").mkdir(parents=True)
    (laptop / "files/claim.json").write_text(RENDERINGS["json-v1"](answer))
    return laptop


def _drop(machine: Premises, account: Account, drop: Callable[[Account], bool]) -> str:
    machine.stop_daemon()
    machine.start_daemon()
    before = machine.certificate_id()
    if not drop(account):
        return "no"
    wait_for(
        lambda: machine.certificate_id() != before, lambda: f"identity: {machine.status().get('problem')}"
    )
    return "identity"


def _act(account: Account, act: Callable[[Account], bool]) -> str:
    must("sh", "-c", f"echo secret > {DROP}/other; chmod 0644 {DROP}/other", user=TOM)
    must("sh", "-c", f"echo own > {DROP}/own", user=account.name)
    return "yes" if act(account) else "no"


def _add_accounts() -> None:
    for group in ("claimd-upload", "claimd-upload-scp"):
        must("groupadd", "--system", group)
    for name, shell, group in (
        (SFTP, "/usr/sbin/nologin", "claimd-upload"),
        (SCP, "/bin/sh", "claimd-upload-scp"),
    ):
        groups = f"claimd-drop,{group}"
        home = ("--no-create-home", "--home-dir", "/", "--password", "*")
        must("useradd", *home, "--shell", shell, "--groups", groups, name)


def _snippet(machine: Premises) -> str:
    """As it is packaged; the command lies where this machine has a place for it, and finds claimd there."""
    place = machine.directory / "bin"
    place.mkdir()
    shutil.copy(PACKAGED / "upload-command", place)
    claimd = place / "claimd"
    claimd.write_text(f'#!/bin/sh\nexec {sys.executable} -m claimd "$@"\n')
    claimd.chmod(0o755)
    text = (PACKAGED / "claimd-upload.conf").read_text()
    assert "/usr/lib/claimd/upload-command" in text
    text = text.replace("/usr/lib/claimd/upload-command", str(place / "upload-command"))
    return f"SetEnv PATH={place}:/usr/bin:/bin PYTHONPATH={REPOSITORY / 'daemon'}\n{text}"


def table(machine: Premises, acts: Sequence[str]) -> str:
    """The table as this machine has it."""
    _add_accounts()
    sshd = Sshd.start(machine, (SFTP, SCP), _snippet(machine))
    machine.start_sweeper()
    lines = [f"{'act':<30}{'claimd-upload':<16}claimd-upload-scp"]
    for act in acts:
        cells = []
        for name in (SFTP, SCP):
            account = Account(name, sshd, _pack(machine))
            must("find", DROP, "-mindepth", "1", "-delete")
            cells.append(_drop(machine, account, DROPS[act]) if act in DROPS else _act(account, ACTS[act]))
        lines.append(f"{act:<30}{cells[0]:<16}{cells[1]}")
    return "\n".join(lines)


def main() -> int:
    if not premises.is_inside():
        return premises.enter("habits.upload_accounts", sys.argv[1:]).returncode
    acts = sys.argv[1:] or [*DROPS, *ACTS]
    machine = Premises.open()
    found = table(machine, acts)
    machine.close()
    print(found)
    expected = [line for line in EXPECTED.splitlines() if line[:30].strip() in ("act", *acts)]
    wrong = [line for line in found.splitlines() if line not in expected]
    for line in wrong:
        print(f"FAILED {line}", file=sys.stderr)
    print(f"{len(wrong)} rows are wrong" if wrong else "all as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
