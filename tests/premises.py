"""A machine of its own for tests with real users: namespaces, the packaged users and directories, an sshd
on loopback, and the daemon as its unit starts it: user claimd with the one capability.

Everything below happens in private mount, network and process namespaces: /etc is an overlay, /home, /tmp,
/run, /var/lib and /var/spool are directories of a temporary one. With the last process all of it is gone.
The host's files are never written. Invariant: no code here runs outside those namespaces but `enter`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import TEMPLATE, KeyKind

REPOSITORY = Path(__file__).resolve().parents[1]
NAMESPACES = (
    "--mount",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--propagation",
    "private",
)
TOOLS = ("unshare", "setpriv", "ip", "mount", "systemd-sysusers", "systemd-tmpfiles", "useradd", "setfacl")
DEADLINE_SECONDS = 60.0
# Where the outer process says that, and where, the inner one is.
_MARK = "CLAIMD_TEST_PREMISES"

DROP = Path("/var/spool/claimd/drop")
RESULT = Path("/var/spool/claimd/result")
STATUS = Path("/run/claimd/status.json")
TECHNICIANS = ("tina", "tom")
OUTSIDER = "olga"
T = TypeVar("T")

CONFIGURATION = """\
endpoint = "localhost"
port = {port}
ca_file = "/etc/claimd/ca.pem"
reprovision = "replace"
[template]
name = "{template}"
[template.parameters]
ThingName = "thing-{{hostname}}"
[timeouts]
grace_seconds = 0.3
{more}
"""


def missing(*more: str) -> str | None:
    """Why there can be no premises here, or None. `more`: programs that a test needs besides."""
    if os.geteuid() != 0:
        return "only root can make users and namespaces"
    gone = [tool for tool in (*TOOLS, *more) if shutil.which(tool, path=_path()) is None]
    if gone:
        return f"not installed: {', '.join(gone)}"
    tried = subprocess.run(["unshare", *NAMESPACES, "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else f"no namespaces here: {tried.stderr.decode().strip()}"


def _path() -> str:
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def enter(module: str, arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs `python -m module arguments…` on premises of its own, which are gone when it ends."""
    directory = tempfile.mkdtemp(prefix="claimd-premises-", dir="/var/tmp")
    os.chmod(directory, 0o755)
    environment = {
        **os.environ,
        "PATH": _path(),
        "PYTHONPATH": f"{REPOSITORY / 'daemon'}:{REPOSITORY / 'tests'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        _MARK: directory,
    }
    # Whatever ends this process ends the premises too.
    alive = ("setpriv", "--pdeathsig=KILL", "unshare", *NAMESPACES)
    command = [*alive, sys.executable, "-m", module, *arguments]
    try:
        return subprocess.run(command, env=environment, text=True, check=False, **options)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def is_inside() -> bool:
    return _MARK in os.environ


def run(*command: str | Path, user: str | None = None, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A command as root, or as `user` with its groups and nothing else of ours."""
    words = [str(word) for word in command]
    if user is not None:
        words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--inh-caps=-all", *words]
    options = {"capture_output": True, "timeout": DEADLINE_SECONDS, "check": False, **options}
    return subprocess.run(words, **options)


def must(*command: str | Path, user: str | None = None, **options: Any) -> subprocess.CompletedProcess[bytes]:
    done = run(*command, user=user, **options)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done


def wait_for(
    condition: Callable[[], T | None], what: str | Callable[[], str], seconds: float = DEADLINE_SECONDS
) -> T:
    """The condition's first true value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s: {what if isinstance(what, str) else what()}")


@dataclass
class Premises:
    """What is there once `open` is through."""

    directory: Path
    sandbox: Sandbox
    daemon: subprocess.Popen[bytes] | None = field(default=None)
    _sweeper: threading.Thread | None = field(default=None)
    _closing: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def open(cls, settings: Settings | None = None, more: str = "") -> Premises:
        directory = Path(os.environ[_MARK])
        _furnish(directory)
        settings = settings or Settings(
            key_kind=KeyKind.EC, connects_per_second=None, operations_per_second=None
        )
        (directory / "sandbox").mkdir(mode=0o700)
        sandbox = Sandbox.start(directory / "sandbox", settings)
        etc = Path("/etc/claimd")
        etc.mkdir(exist_ok=True)
        shutil.copy(sandbox.ca_file, etc / "ca.pem")
        text = CONFIGURATION.format(port=sandbox.mqtt_port, template=TEMPLATE, more=more)
        (etc / "claimd.toml").write_text(text)
        return cls(directory, sandbox)

    @property
    def journal(self) -> Path:
        return self.directory / "journal"

    def start_daemon(self) -> None:
        """As claimd.service does: its user, its groups, its one capability, no new privileges."""
        command = [
            *("setpriv", "--reuid=claimd", "--regid=claimd", "--init-groups", "--no-new-privs"),
            *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
            *("--bounding-set=-all,+dac_read_search", "--pdeathsig=KILL"),
            *(sys.executable, "-m", "claimd", "run"),
        ]
        environment = {
            "PATH": _path(),
            "PYTHONPATH": os.environ["PYTHONPATH"],
            "PYTHONDONTWRITEBYTECODE": "1",
            "LANG": "C.UTF-8",
        }
        with self.journal.open("ab") as journal:
            self.daemon = subprocess.Popen(
                command, env=environment, stdout=journal, stderr=journal, cwd="/", umask=0o077
            )
        wait_for(lambda: self.status().get("service") or self._has_ended(), self._last_words)
        assert self.daemon.poll() is None, self._last_words()

    def start_sweeper(self) -> None:
        """Stands for claimd-sweep.path and claimd-sweep.service."""

        def watch() -> None:
            command = (
                *("setpriv", "--bounding-set=-all,+dac_read_search,+chown,+fowner", "--no-new-privs"),
                *(sys.executable, "-m", "claimd", "sweep"),
            )
            while not self._closing.wait(0.1):
                if any(DROP.glob(".claimd-sweep-*")):
                    must(*command)

        self._sweeper = threading.Thread(target=watch, name="sweeper", daemon=True)
        self._sweeper.start()

    def _has_ended(self) -> bool:
        return self.daemon is not None and self.daemon.poll() is not None

    def _last_words(self) -> str:
        return f"the service: {self.journal.read_text(errors='replace')[-2000:]}"

    def stop_daemon(self) -> None:
        if self.daemon is not None:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(DEADLINE_SECONDS)
            self.daemon = None

    def status(self) -> dict[str, Any]:
        """What `claimd status --json` merges, without starting a program for it."""
        found: dict[str, Any] = {}
        for path in (STATUS, STATUS.with_name("supervisor.json")):
            try:
                document = json.loads(path.read_bytes())
            except (FileNotFoundError, ValueError):
                continue
            found.update({"service": document} if path.name == "supervisor.json" else document)
        return found

    def certificate_id(self) -> str | None:
        """Of the identity in force."""
        try:
            return os.readlink("/var/lib/claimd/identity/current")
        except FileNotFoundError:
            return None

    def close(self) -> None:
        self._closing.set()
        if self._sweeper is not None:
            self._sweeper.join()
        self.stop_daemon()
        self.sandbox.stop()


def _is_private(place: str) -> bool:
    """Whether a directory of these premises can lie over it: not over what the tests themselves run from."""
    return not any(str(tree).startswith(f"{place}/") for tree in (REPOSITORY, sys.prefix, sys.base_prefix))


def written() -> tuple[Path, ...]:
    """Where the daemon and its users write, and nobody from outside."""
    places = ("/var/spool/claimd", "/var/lib/claimd", "/run/claimd", "/tmp")
    return tuple(Path(place) for place in places if place != "/tmp" or _is_private(place))


def files_below(place: Path) -> Iterator[Path]:
    """Regular files. What the daemon takes away meanwhile is no error; what can't be looked into is."""

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for directory, folders, names in os.walk(place, onerror=failed):
        folders.sort()
        for path in sorted(Path(directory, name) for name in names):
            if path.is_file() and not path.is_symlink():
                yield path


def _furnish(directory: Path) -> None:
    for name in ("etc", "work", "home", "tmp", "lib", "spool"):
        (directory / name).mkdir()
    (directory / "tmp").chmod(0o1777)
    overlay = f"lowerdir=/etc,upperdir={directory / 'etc'},workdir={directory / 'work'}"
    must("mount", "-t", "overlay", "overlay", "-o", overlay, "/etc")
    for tree in (REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)):
        _open_the_way(tree)
    for name, place in (("home", "/home"), ("lib", "/var/lib"), ("spool", "/var/spool"), ("tmp", "/tmp")):
        if _is_private(place):
            must("mount", "--bind", directory / name, place)
    must("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    must("ip", "link", "set", "lo", "up")
    must("systemd-sysusers", REPOSITORY / "packaging/sysusers.d/claimd.conf")
    must("systemd-tmpfiles", "--create", REPOSITORY / "packaging/tmpfiles.d/claimd.conf")
    for user in TECHNICIANS:
        add_user(user, "claimd-drop")
    add_user(OUTSIDER)


def add_user(name: str, *groups: str) -> None:
    # "*" is a password that nothing opens; sshd takes "!" for a locked account.
    more = ("--groups", ",".join(groups)) if groups else ()
    must("useradd", "--create-home", "--user-group", "--password", "*", "--shell", "/bin/sh", *more, name)


def _open_the_way(tree: Path) -> None:
    """Lets every user reach `tree`, through parents that are closed outside (root's home)."""
    closed = [each for each in reversed(tree.parents) if not each.stat().st_mode & 0o001]
    if not closed:
        return
    # The working directory holds on to the tree while its way is covered.
    with tempfile.TemporaryDirectory(dir=os.environ[_MARK]) as held:
        must("mount", "--bind", tree, held)
        must("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", closed[0])
        tree.mkdir(parents=True)
        must("mount", "--bind", held, tree)
        must("umount", held)


@dataclass(frozen=True)
class Sshd:
    """A real sshd on loopback, and what its clients need to know."""

    port: int
    key: Path

    @classmethod
    def start(cls, premises: Premises, users: Sequence[str], more: str = "") -> Sshd:
        directory = premises.directory / "sshd"
        directory.mkdir(mode=0o755)
        Path("/run/sshd").mkdir(exist_ok=True)
        for name in ("host", "client"):
            must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name)
        for user in users:
            shutil.copy(directory / "client.pub", directory / f"keys-{user}")
        port = 2222
        sftp = next(
            path
            for path in ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "internal-sftp")
            if path == "internal-sftp" or Path(path).exists()
        )
        (directory / "config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {directory}/keys-%u\nPasswordAuthentication no\nStrictModes no\n"
            f"MaxStartups 100\nSubsystem sftp {sftp}\n{more}"
        )
        sshd = shutil.which("sshd", path=_path())
        assert sshd is not None
        must(sshd, "-t", "-f", directory / "config")
        log = (directory / "log").open("ab")
        subprocess.Popen(
            [sshd, "-D", "-e", "-f", str(directory / "config")], stderr=log, stdin=subprocess.DEVNULL
        )
        started = cls(port, directory / "client")
        wait_for(lambda: run("ssh-keyscan", "-p", str(port), "127.0.0.1").stdout, "sshd")
        return started

    @property
    def options(self) -> tuple[str, ...]:
        """For ssh, scp and sftp alike."""
        settings = (
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "BatchMode=yes",
        )
        return ("-F", "none", "-i", str(self.key), *[word for each in settings for word in ("-o", each)])

    def ssh(self, user: str, *command: str) -> tuple[str, ...]:
        return ("ssh", *self.options, "-p", str(self.port), f"{user}@127.0.0.1", *command)

    def scp(self, *words: str) -> tuple[str, ...]:
        return ("scp", *self.options, "-P", str(self.port), *words)

    def sftp(self, user: str, batch: Path) -> tuple[str, ...]:
        return ("sftp", *self.options, "-P", str(self.port), "-b", str(batch), f"{user}@127.0.0.1")

    def rsync(self, *words: str) -> tuple[str, ...]:
        return ("rsync", "-e", " ".join(("ssh", *self.options, "-p", str(self.port))), *words)
