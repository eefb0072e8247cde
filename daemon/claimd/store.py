"""What claimd keeps under /var/lib/claimd, and the order in which it gets there.

    attempt.json                   0600  the record of the open attempt (see record.py)
    claims/<fingerprint>/          0700  certificate.pem, private.key (0600): destroyed at the end
                                   device.key (0600), where the device makes its own key
    identity/                      2750  group claimd-identity, made by tmpfiles; never chmodded here
      <certificate-id>/            private.key 0640, certificate.pem, root-ca.pem        <- stage
                                   ownership-token 0600, reserve-*                       <- stage
                                   identity.json, identity.env, manifest.json            <- complete
      current -> <certificate-id>  the single commit point                               <- activate
    told.json                      0600  which identity and which end of it the journal was told of
    activated                      the certificate id: what path units watch
    machine.json                   0600  which machine all of this belongs to (see origin.py)
    forgetting                     `claimd forget` has begun and is finished before anything else

Invariant: a directory with a manifest whose hashes hold is a whole identity; without one it is
a staged key. Nothing in identity/ is removed but what AWS provably never activated, an earlier
generation that was kept long enough (generations.py), and all of it when a person forgets. Layout
names what others read; every other path under the state directory is spelt here alone.

The ownership token lies beside the key that it registers, not beside the claim: it outlives
the claim (one hour against five minutes), and key and token must appear together or not at all.

The reserve is room, taken before RegisterThing is sent and given back when its answer is here: AWS
says the thing's name and its device configuration once, and a disk that filled up in that second
must not cost them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import documents, ledger, lock, news, record, report
from .attempt import Record
from .documents import MAX_STORED_BYTES
from .durable import Disk, File
from .errors import ClaimdError, Code, fail
from .model import Claim, Layout, Secret
from .pem import parse_certificate, parse_private_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .fleet import IssuedKeys
    from .ledger import Ledger
    from .model import Certificate, PrivateKey
    from .news import Told

IDENTITY_SCHEMA = 1
MANIFEST_SCHEMA = 1
MACHINE_SCHEMA = 1
_ID = re.compile(r"[0-9a-f]{64}\Z")

KEY, CERTIFICATE, ROOTS, TOKEN = "private.key", "certificate.pem", "root-ca.pem", "ownership-token"
DEVICE_KEY = "device.key"
IDENTITY, ENVIRONMENT, MANIFEST = "identity.json", "identity.env", "manifest.json"
# The answer itself; the others are an inode and a block for each file that follows it.
RESERVES = {
    "reserve-1": documents.ROOM_FOR_THE_ANSWER,
    "reserve-2": 4096,
    "reserve-3": 4096,
    "reserve-4": 4096,
}
_STAGED_FILES = 4 + len(RESERVES)


@dataclass(frozen=True)
class StagedIdentity:
    """A key and its certificate on disk, whole or only staged."""

    certificate_id: str
    path: str
    certificate: Certificate
    key: Secret
    roots: bytes
    token: Secret | None


@dataclass(frozen=True)
class Identity:
    """The identity that serves: what `current` points to, its manifest checked."""

    certificate_id: str
    path: str
    document: Mapping[str, Any]  # identity.json

    @property
    def thing_name(self) -> str | None:
        name = self.document.get("thing_name")
        return name if isinstance(name, str) else None


class Store:
    def __init__(self, layout: Layout, disk: Disk) -> None:
        self.layout = layout
        self.disk = disk
        self._told_file = os.path.join(layout.state_directory, "told.json")
        self._claims = os.path.join(layout.state_directory, "claims")
        self._activated = os.path.join(layout.state_directory, "activated")
        self._machine_file = os.path.join(layout.state_directory, "machine.json")

    # -- the lock, and the traces of a crash

    @contextmanager
    def locked(self, wait: Callable[[], bool] | None = None) -> Iterator[bool]:
        """Hold the state directory. `wait`, and what is yielded: see `lock.take`.

        Raises LockedError; ClaimdError when the directory is not there.
        """
        path = self.layout.state_directory
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise fail(Code.STATE_DIRECTORY_MISSING, path=path) from error
        try:
            yield lock.take(fd, wait)
        finally:
            os.close(fd)

    def prepare(self) -> list[str]:
        """Make what is missing and sweep what a crash left behind. Under the lock.

        Returns what is said of identities that can't be swept: maybe an old one's folder, on a bad sector,
        which keeps nobody else waiting.
        """
        unswept = []
        self.disk.make_directory(self._claims, 0o700)
        # Made by tmpfiles on a device, setgid for its own group; this is for --root and a lost directory.
        # Not 02750: mkdir(2) takes no set-id bits, and the unit's RestrictSUIDSGID= refuses to be asked.
        self.disk.make_directory(self.layout.identity_directory, 0o750)
        for directory in (self.layout.state_directory, self.layout.identity_directory):
            self.disk.sweep(directory)
        for directory in (self._claims, *(self._identity(name) for name in self.staged())):
            try:
                self.disk.sweep(directory)
            except OSError as error:
                unswept.append(f"{directory} can't be swept: {error.strerror}")
        # What a pass renamed before it was killed is there and may still be lost: nothing is built on it
        # before it is safe.
        for directory in (self.layout.state_directory, self._claims, self.layout.identity_directory):
            self.disk.sync_directory(directory)
        return unswept

    # -- the record of the attempt

    def load_record(self) -> Record:
        """Raises ClaimdError(ATTEMPT_UNREADABLE); the file is left alone then."""
        try:
            return record.decode(_read(self.layout.attempt_file))
        except FileNotFoundError:
            return Record()
        except (record.RecordError, ValueError) as error:
            raise fail(Code.ATTEMPT_UNREADABLE, path=self.layout.attempt_file, detail=str(error)) from error

    def save_record(self, what: Record) -> None:
        self.disk.write_file(self.layout.attempt_file, record.encode(what), 0o600)

    # -- whose it is

    def load_machine(self) -> str | None:
        """None also when it is damaged: then nothing is known. Raises OSError."""
        try:
            document = json.loads(_read(self._machine_file))
            found = document["machine"] if document["schema"] == MACHINE_SCHEMA else None
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None
        return found if isinstance(found, str) else None

    def save_machine(self, machine: str) -> None:
        text = json.dumps({"schema": MACHINE_SCHEMA, "machine": machine}).encode("ascii") + b"\n"
        self.disk.write_file(self._machine_file, text, 0o600)

    # -- claims

    def secure_claim(self, claim: Claim) -> None:
        """Keep a claim. When this returns it is on disk, and the dropped files may go.

        Raises OSError also when the copy that is there can't be read now: the dropped one may be the only
        good one.
        """
        path = self._claim(claim.fingerprint)
        if os.path.isdir(path):
            try:
                self.load_claim(claim.fingerprint)
            except (FileNotFoundError, ValueError):
                self.disk.remove_tree(path)  # damaged for good
            else:
                return
        files = {
            CERTIFICATE: File(claim.certificate.pem.encode("ascii"), 0o600),
            KEY: File(claim.key.pem.reveal(), 0o600),
        }
        self.disk.make_tree(path, files, 0o700)

    def load_claim(self, fingerprint: str) -> Claim:
        """Raises FileNotFoundError, ValueError when it is damaged, OSError when the disk has trouble."""
        path = self._claim(fingerprint)
        certificate = parse_certificate(_read(os.path.join(path, CERTIFICATE)).decode("ascii"))
        return Claim(certificate, parse_private_key(_read(os.path.join(path, KEY))))

    def claims(self) -> list[Claim]:
        """The kept claims that can be read now. Changes nothing: see `claim_names` and `claim_damage`."""
        found = []
        for name in self.claim_names():
            try:
                found.append(self.load_claim(name))
            except (OSError, ValueError):
                continue
        return found

    def claim_names(self) -> list[str]:
        """The fingerprints under which claims are kept, readable or not."""
        return [name for name in _names(self._claims) if _ID.match(name)]

    def claim_damage(self, fingerprint: str) -> str | None:
        """What is wrong for good with a kept claim. Raises OSError: a disk that has trouble may get well."""
        try:
            self.load_claim(fingerprint)
        except FileNotFoundError as error:
            return f"{os.path.basename(str(error.filename))} is missing"
        except ValueError as error:
            return str(error)
        return None

    def device_key(self, fingerprint: str) -> PrivateKey | None:
        """The key that was made here for this claim. None also when it is damaged: nothing was certified
        with it that is not staged, so another one does as well."""
        text = _read_optional(os.path.join(self._claim(fingerprint), DEVICE_KEY))
        try:
            return None if text is None else parse_private_key(text)
        except ValueError:
            return None

    def keep_device_key(self, fingerprint: str, key: PrivateKey) -> None:
        """Before it is certified: what AWS signs is on disk already."""
        path = os.path.join(self._claim(fingerprint), DEVICE_KEY)
        self.disk.write_file(path, key.pem.reveal(), 0o600)

    def destroy_claim(self, fingerprint: str) -> None:
        self.disk.remove_tree(self._claim(fingerprint))

    def open_secrets(self) -> list[tuple[str, int]]:
        """Path and widest mode of each secret that somebody gave a wider one."""
        claims = [
            os.path.join(self._claim(f), name) for f in self.claim_names() for name in (KEY, DEVICE_KEY)
        ]
        identities = [self._identity(name) for name in self.staged()]
        secrets = [(path, 0o600) for path in claims]
        secrets += [(os.path.join(path, KEY), 0o640) for path in identities]
        secrets += [(os.path.join(path, TOKEN), 0o600) for path in identities]
        return [(path, widest) for path, widest in secrets if _is_wider(path, widest)]

    # -- the way of an identity

    def stage(self, issued: IssuedKeys, roots: bytes) -> None:
        """Keep what CreateKeys answered, before anything else is sent.

        If it dies half-way: nothing under the certificate's id, and AWS deletes the unused
        certificate within the hour. Raises ValueError when something is there under that id.
        """
        path = self._identity(issued.certificate_id)
        if os.path.lexists(path):
            raise ValueError("an id is given once")
        files = {
            KEY: File(issued.key.pem.reveal(), 0o640),
            CERTIFICATE: File(issued.certificate.pem.encode("ascii"), 0o640),
            ROOTS: File(roots, 0o640),
            TOKEN: File(issued.token.reveal(), 0o600),
        }
        for name, size in RESERVES.items():
            files[name] = File(os.urandom(size), 0o600, synced=False)
        self.disk.make_tree(path, files, 0o750)

    def load_staged(self, certificate_id: str) -> StagedIdentity:
        """Raises ClaimdError(IDENTITY_DAMAGED) when the key is gone or does not fit."""
        path = self._identity(certificate_id)
        try:
            certificate = parse_certificate(_read(os.path.join(path, CERTIFICATE)).decode("ascii"))
            key = parse_private_key(_read(os.path.join(path, KEY)))
            roots = _read(os.path.join(path, ROOTS))
            token = _read_optional(os.path.join(path, TOKEN))
        except (FileNotFoundError, ValueError) as error:
            detail = "a file is missing" if isinstance(error, FileNotFoundError) else str(error)
            raise fail(Code.IDENTITY_DAMAGED, path=path, detail=detail) from error
        if certificate.public_key_id != key.public_key_id:
            raise fail(Code.IDENTITY_DAMAGED, path=path, detail="the key does not belong to the certificate")
        return StagedIdentity(
            certificate_id,
            path,
            certificate,
            key.pem,
            roots,
            Secret(token) if token else None,
        )

    def complete(self, certificate_id: str, document: Mapping[str, Any]) -> None:
        """Make a staged key a whole identity: its documents, and the manifest last.

        If it dies half-way: still a staged key, and the same call again completes it.
        """
        path = self._identity(certificate_id)
        for name in RESERVES:
            self.disk.give_up_room(os.path.join(path, name))
        whole = {"schema": IDENTITY_SCHEMA, **document, "paths": self._paths(path)}
        self.disk.write_file(os.path.join(path, IDENTITY), documents.identity_json(whole), 0o640)
        self.disk.write_file(os.path.join(path, ENVIRONMENT), documents.identity_env(whole), 0o640)
        hashes = {
            name: hashlib.sha256(_read(os.path.join(path, name))).hexdigest()
            for name in (KEY, CERTIFICATE, ROOTS, IDENTITY, ENVIRONMENT)
        }
        manifest = json.dumps({"schema": MANIFEST_SCHEMA, "sha256": hashes}, indent=2).encode("ascii") + b"\n"
        self.disk.write_file(os.path.join(path, MANIFEST), manifest, 0o640)
        self.disk.remove_file(os.path.join(path, TOKEN))

    def replace_roots(self, certificate_id: str, roots: bytes) -> None:
        """Root certificates that the disk damaged. If it dies half-way: a manifest that says so."""
        self.disk.write_file(os.path.join(self._identity(certificate_id), ROOTS), roots, 0o640)
        document = self.document(certificate_id)
        if document is not None and os.path.exists(os.path.join(self._identity(certificate_id), MANIFEST)):
            self.complete(certificate_id, document)

    def activate(self, certificate_id: str) -> None:
        """Let a whole identity serve: one symlink, replaced by rename. Raises ClaimdError when not whole."""
        path = self._identity(certificate_id)
        damage = self._whole(path)
        if damage is not None:
            raise fail(Code.IDENTITY_DAMAGED, path=path, detail=damage)
        self.disk.replace_symlink(self.layout.current_identity, certificate_id)
        self.announce(certificate_id)

    def announce(self, certificate_id: str) -> None:
        """Replace `activated`: path units miss a symlink's swap. Repeated when a crash came between."""
        text = certificate_id.encode("ascii") + b"\n"
        if _read_optional(self._activated) != text:
            self.disk.write_file(self._activated, text, 0o644)

    def current(self) -> Identity | None:
        """The identity that serves, or None.

        Raises ClaimdError(IDENTITY_DAMAGED) when it is not whole, PermissionError when this account can't
        know.
        """
        try:
            certificate_id = os.readlink(self.layout.current_identity)
        except FileNotFoundError:
            return None
        except PermissionError:
            raise
        except OSError as error:
            why = "it is no symbolic link" if error.errno == errno.EINVAL else error.strerror
            raise fail(Code.IDENTITY_DAMAGED, path=self.layout.current_identity, detail=why) from error
        path = os.path.join(self.layout.identity_directory, certificate_id)
        damage = self._whole(path) if _ID.match(certificate_id) else "the link points elsewhere"
        if damage is not None:
            raise fail(Code.IDENTITY_DAMAGED, path=path, detail=damage)
        return Identity(certificate_id, path, json.loads(_read(os.path.join(path, IDENTITY))))

    def serving(self) -> Identity | None:
        """`current`, where one that is not whole counts as none.

        Raises OSError: what can't be read now may serve all the same, and nothing is decided on that.
        """
        try:
            return self.current()
        except ClaimdError:
            return None

    def current_link(self) -> str | None:
        """The certificate id that `current` names, whether or not it is there."""
        try:
            name = os.readlink(self.layout.current_identity)
        except OSError:
            return None
        return name if _ID.match(name) else None

    def staged(self) -> list[str]:
        """Certificate ids that are on disk, whole or not."""
        return [name for name in _names(self.layout.identity_directory) if _ID.match(name)]

    def staged_with_token(self) -> list[str]:
        """Staged keys whose token is still beside them: at most one, the last request's."""
        return [name for name in self.staged() if os.path.exists(os.path.join(self._identity(name), TOKEN))]

    def document(self, certificate_id: str) -> dict[str, Any] | None:
        """The identity.json that `complete` wrote, also when it died before the manifest."""
        try:
            text = _read_optional(os.path.join(self._identity(certificate_id), IDENTITY))
            document: dict[str, Any] | None = None if text is None else json.loads(text)
        except ValueError:
            return None
        return document if isinstance(document, dict) else None

    def staged_damage(self, certificate_id: str) -> str | None:
        """What is wrong for good with a staged key, so that it can't be used. Raises OSError."""
        try:
            self.load_staged(certificate_id)
        except ClaimdError as error:
            return error.problem.fields["detail"]
        return None

    def forget_token(self, certificate_id: str) -> None:
        """The token lapsed: the key is kept, beside the one that comes next; its reserve is not."""
        path = self._identity(certificate_id)
        for name in RESERVES:
            self.disk.give_up_room(os.path.join(path, name))
        try:
            self.disk.remove_file(os.path.join(path, TOKEN))
        except (FileNotFoundError, NotADirectoryError):
            pass  # the folder itself is gone

    def is_complete(self, certificate_id: str) -> bool:
        return self._whole(self._identity(certificate_id)) is None

    def discard_staged(self, certificate_id: str) -> None:
        """Remove a staged key that AWS provably never activated; a whole identity is never touched."""
        path = self._identity(certificate_id)
        if os.path.exists(os.path.join(path, MANIFEST)):
            raise ValueError("a whole identity is not discarded")
        self.disk.remove_tree(path)

    def remove_generation(self, certificate_id: str) -> None:
        """Remove an earlier identity for good; never the one that `current` names."""
        if certificate_id == self.current_link():
            raise ValueError("the identity that serves is not removed")
        self.disk.remove_tree(self._identity(certificate_id))

    # -- the way out

    @property
    def has_record(self) -> bool:
        return os.path.lexists(self.layout.attempt_file)

    def is_forgetting(self) -> bool:
        return os.path.lexists(self.layout.forgetting_file)

    def begin_forgetting(self) -> None:
        """From here on there is no identity any more, whatever dies in between."""
        self.disk.write_file(self.layout.forgetting_file, b"", 0o600)

    def forget(self) -> None:
        """Destroy all that lies under the state directory; the intent goes last. Under the lock.

        If it dies half-way: the intent is still there, and the same call again ends it. It knows then whose
        the rest is: the note of the machine goes after all that it is about.
        """
        self.disk.remove_file(self.layout.current_identity)
        state = self.layout.state_directory
        for name in _all_names(state):
            path = os.path.join(state, name)
            if path not in (self.layout.forgetting_file, self._machine_file) and not _is_directory(path):
                self.disk.remove_file(path)
        for directory in (self._claims, self.layout.identity_directory):
            self.disk.sweep(directory)
            for name in _all_names(directory):
                path = os.path.join(directory, name)
                if _is_directory(path):
                    self.disk.remove_tree(path)
                else:
                    self.disk.remove_file(path)
        self.disk.remove_file(self._machine_file)
        self.disk.remove_file(self.layout.forgetting_file)

    # -- what others read

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Raises OSError."""
        try:
            text = report.encoded(status)
        except ValueError as error:
            raise OSError(errno.EFBIG, str(error)) from error
        self.disk.write_volatile(self.layout.status_file, text, 0o644)

    def load_status(self) -> dict[str, Any] | None:
        """What was written last, since the machine started; None when there is none that can be read."""
        try:
            return report.decoded(_read(self.layout.status_file, report.MAX_STATUS_BYTES))
        except (OSError, ValueError):
            return None

    def load_told(self) -> Told:
        """Never raises: one that can't be read has told nothing, so that it is told again."""
        try:
            return news.decode(_read(self._told_file))
        except (OSError, ValueError):
            return news.Told()

    def save_told(self, what: Told) -> None:
        """Raises OSError. Durable, because a warning is given once, not at every boot."""
        self.disk.write_file(self._told_file, news.encode(what), 0o600)

    def load_ledger(self) -> Ledger:
        """Never raises: one that can't be read is an empty one."""
        try:
            return ledger.decode(_read(self.layout.ledger_file))
        except (OSError, ValueError):
            return ledger.Ledger()

    def save_ledger(self, what: Ledger) -> None:
        """Raises OSError; nothing but words and graces depends on it."""
        self.disk.write_volatile(self.layout.ledger_file, ledger.encode(what), 0o600)

    def probe(self) -> None:
        """Raises OSError before a claim is spent on a disk that would not keep the answer."""
        self.disk.probe(self.layout.state_directory)
        self.disk.probe(self.layout.identity_directory, _STAGED_FILES)

    # -- paths

    def _claim(self, fingerprint: str) -> str:
        return os.path.join(self._claims, _checked(fingerprint))

    def _identity(self, certificate_id: str) -> str:
        return os.path.join(self.layout.identity_directory, _checked(certificate_id))

    def _paths(self, path: str) -> dict[str, str]:
        return {
            "private_key": os.path.join(path, KEY),
            "certificate": os.path.join(path, CERTIFICATE),
            "root_ca": os.path.join(path, ROOTS),
        }

    def _whole(self, path: str) -> str | None:
        """None when every file of the manifest is there and unchanged, else what is wrong."""
        try:
            manifest = json.loads(_read(os.path.join(path, MANIFEST)))
            expected: dict[str, str] = manifest["sha256"]
            for name in (KEY, CERTIFICATE, ROOTS, IDENTITY, ENVIRONMENT):
                if hashlib.sha256(_read(os.path.join(path, name))).hexdigest() != expected[name]:
                    return f"{name} is not what was stored"
        except FileNotFoundError as error:
            return f"{os.path.basename(str(error.filename))} is missing"
        except (ValueError, KeyError, TypeError):
            return "the manifest is damaged"
        return None


def _checked(name: str) -> str:
    if not _ID.match(name):
        raise ValueError("not 64 hex digits")
    return name


def _is_wider(path: str, widest: int) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and bool(stat.S_IMODE(found.st_mode) & ~widest)


def _names(directory: str) -> list[str]:
    try:
        return sorted(n for n in os.listdir(directory) if not n.startswith("."))
    except FileNotFoundError:
        return []


def _all_names(directory: str) -> list[str]:
    """Also what a crash left behind."""
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _read(path: str, limit: int = MAX_STORED_BYTES) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(fd, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError("the file is larger than claimd writes")
    return data


def _read_optional(path: str) -> bytes | None:
    try:
        return _read(path)
    except FileNotFoundError:
        return None
