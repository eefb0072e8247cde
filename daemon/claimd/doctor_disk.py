"""Checks of the drop directory, the store and the identity. Nothing is changed; the one write is state-write,
which makes, syncs and removes a file of its own.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import ssl
import stat
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from . import preflight
from .durable import Disk
from .inquiry import Check, Found, failed, ok, skipped, warning
from .listing import OURS
from .model import short, spoken
from .patient import file_system, text_of
from .pem import parse_certificate, parse_private_key
from .store import Store
from .system import USER

if TYPE_CHECKING:
    from .patient import Patient

STALE_SECONDS = 600
LEAST_BYTES = 1024 * 1024
LEAST_INODES = 50
EXPIRES_SOON = timedelta(days=30)
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"})
_VOLATILE = frozenset({"tmpfs", "ramfs"})
_PROTECT = "sudo sysctl fs.protected_regular=1"
_TMPFILES = "sudo systemd-tmpfiles --create claimd.conf"


def _restore(evidence: str) -> Found:
    return failed(evidence, f"restore it: {_TMPFILES}", _TMPFILES)


def _directory(path: str, patient: Patient, mode: int, owner: str, group: str) -> Found:
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return _restore(f"{path} is missing")
    if not stat.S_ISDIR(found.st_mode):
        return _restore(f"{path} is no directory")
    if not patient.is_machine:
        return ok(f"{path} is there; below --root no owner is demanded")
    there = (stat.S_IMODE(found.st_mode), _user(found.st_uid), _group(found.st_gid))
    text = f"{path} is {there[0]:04o} {there[1]}:{there[2]}"
    if there == (mode, owner, group):
        return ok(text)
    return _restore(f"{text}, not {mode:04o} {owner}:{group}")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _drop_directory(patient: Patient) -> Found:
    return _directory(patient.layout.drop_directory, patient, 0o1777, USER, USER)


def _drop_acl(patient: Patient) -> Found:
    try:
        os.getxattr(patient.layout.drop_directory, "system.posix_acl_default")
    except OSError as error:
        text = f"no default ACL ({error.strerror}): a copied file's own mode decides who may read it"
        return warning(text, f"restore it: {_TMPFILES}", _TMPFILES)
    return ok("a default ACL keeps copied files to their owners")


def _drop_traps(patient: Patient) -> Found:
    return protection((text_of("/proc/sys/fs/protected_regular") or "").strip())


def protection(switch: str) -> Found:
    """By fs.protected_regular: whether scp can be made to write into another account's file (proc(5))."""
    if not switch:
        return skipped("this kernel has no fs.protected_regular")
    text = f"fs.protected_regular is {switch}"
    if switch == "0":
        return warning(
            f"{text}: a copy may land in a file that another technician has made under its name",
            f"set it, or drop claims by claimd put: {_PROTECT}",
            _PROTECT,
        )
    return ok(text)


def _drop_file_system(patient: Patient) -> Found:
    kind, _ = file_system(patient.layout.drop_directory)
    if kind in _REMOTE:
        return failed(
            f"{patient.layout.drop_directory} is on {kind}: other machines' writes are not seen",
            "put /var/spool/claimd on a local file system",
        )
    return ok(f"{kind}, local")


def _inotify(patient: Patient) -> Found:
    limits = {
        n: (text_of(f"/proc/sys/fs/inotify/{n}") or "?").strip()
        for n in ("max_user_watches", "max_user_instances")
    }
    text = ", ".join(f"{name} {value}" for name, value in limits.items())
    if any(value in ("0", "1") for value in limits.values()):
        return warning(text, "raise fs.inotify.max_user_instances by sysctl; claimd polls meanwhile")
    try:
        watcher = json.loads(text_of(patient.layout.supervisor_file) or "{}")
    except ValueError:
        watcher = {}
    if isinstance(watcher, dict) and watcher.get("watch") == "polling":
        why = str(watcher.get("watch_problem"))
        return warning(f"the service polls: {why}", "raise fs.inotify.max_user_instances by sysctl")
    return ok(text)


def _right_to_read(patient: Patient) -> Found:
    """scp keeps a key's 0600: the service reads it by one capability."""
    if not patient.is_machine:
        return skipped("below --root everybody reads his own files")
    pid = (patient.ask("systemctl", "show", "--property=MainPID", "--value", "claimd.service") or "0").strip()
    status = text_of(f"/proc/{pid}/status") if pid not in ("", "0") else None
    if status is None:
        return skipped("the service is not running")
    effective = next((int(x.split()[1], 16) for x in status.splitlines() if x.startswith("CapEff:")), 0)
    if effective >> 2 & 1:
        return ok("the service has CAP_DAC_READ_SEARCH: files of mode 0600 are read")
    return failed(
        "the service runs without CAP_DAC_READ_SEARCH",
        "start it by its unit: sudo systemctl restart claimd",
        "sudo systemctl restart claimd",
    )


def _drop_contents(patient: Patient) -> Found:
    directory, now = patient.layout.drop_directory, time.time()
    names = [n for n in os.listdir(directory) if not n.startswith(OURS)]
    old = []
    for name in names:
        try:
            if now - os.stat(os.path.join(directory, name), follow_symlinks=False).st_ctime > STALE_SECONDS:
                old.append(name)
        except FileNotFoundError:
            continue
    if old:
        return warning(
            f"older than {STALE_SECONDS // 60} min: {', '.join(sorted(old)[:5])}",
            "see claimd status for what is missing, or remove them",
            "claimd status",
        )
    return ok(f"{len(names)} files, none of them stale" if names else "empty")


def _state_directory(patient: Patient) -> Found:
    return _directory(patient.layout.state_directory, patient, 0o711, USER, USER)


def _writable(patient: Patient) -> Found:
    """As a pass does before it spends a claim."""
    Disk().probe(patient.layout.state_directory)
    return ok("a file was written, synced and removed")


def _space(patient: Patient) -> Found:
    path = patient.layout.state_directory
    found = os.statvfs(path)
    free, nodes = found.f_bavail * found.f_frsize, found.f_favail
    text = f"{free // 1024} KiB free, " + (
        f"{nodes} inodes free" if found.f_files else "inodes without limit"
    )
    if free < LEAST_BYTES or (found.f_files and nodes < LEAST_INODES):
        return failed(text, f"free some space, see df -h {path}", f"df -h {path}")
    return ok(text)


def _state_file_system(patient: Patient) -> Found:
    kind, options = file_system(patient.layout.state_directory)
    if "ro" in options.split(","):
        return failed(f"{kind}, mounted read-only", "look at sudo dmesg", "sudo dmesg")
    if kind in _REMOTE:
        return failed(f"{kind} is not local", "put /var/lib/claimd on a local file system")
    if kind in _VOLATILE and patient.is_machine:
        return failed(
            f"{kind}: the identity would be lost at the next start", "put /var/lib/claimd on a disk"
        )
    return ok(kind)


def _attempt(patient: Patient) -> Found:
    record = Store(patient.layout, Disk()).load_record()
    attempt = record.attempt
    if attempt is None:
        return ok(f"no attempt is open; {len(record.history)} outcomes are recorded")
    return ok(f"{attempt.state.value}, can be resumed")


def _identity(patient: Patient) -> Found:
    found = Store(patient.layout, Disk()).current()
    if found is None:
        return skipped("this device has no identity yet")
    patient.identity = found
    return ok(f"{found.path} is whole, thing {found.thing_name or 'unknown'}")


def _pair(patient: Patient) -> Found:
    key = parse_private_key(_read(patient, "private.key"))
    certificate = parse_certificate(_read(patient, "certificate.pem").decode("ascii"))
    if key.public_key_id != certificate.public_key_id:
        return failed(
            "private.key does not belong to certificate.pem", "keep the folder and copy a new claim"
        )
    return ok(f"{key.algorithm}, key and certificate belong together")


def _expiry(patient: Patient) -> Found:
    end = parse_certificate(_read(patient, "certificate.pem").decode("ascii")).not_after
    left = end - patient.now()
    if left <= timedelta(0):
        return failed(f"expired {spoken(end)}", 'copy a new claim, with reprovision = "replace"')
    if left < EXPIRES_SOON:
        return warning(f"expires {spoken(end)}", 'copy a new claim, with reprovision = "replace"')
    return ok(f"until {spoken(end)}")


def _modes(patient: Patient) -> Found:
    path = _path(patient)
    mode = stat.S_IMODE(os.stat(os.path.join(path, "private.key")).st_mode)
    if mode & 0o137:
        command = f"sudo chmod 0640 {path}/private.key"
        return failed(f"private.key is {mode:04o}", f"shut it: {command}", command)
    return ok(f"private.key is {mode:04o}")


def _connects(patient: Patient) -> Found:
    """TLS with the permanent certificate and no MQTT CONNECT: the client id's user keeps its connection.

    So it is not asked whether the policy lets the client id connect; AWS refuses an unknown or inactive
    certificate by hanging up after the handshake, which the short read shows.
    """
    assert patient.identity is not None
    path, document = _path(patient), patient.identity.document
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(os.path.join(path, "root-ca.pem"))
    context.load_cert_chain(os.path.join(path, "certificate.pem"), os.path.join(path, "private.key"))
    host, port = str(document["endpoint"]), patient.port or int(document["port"])
    if port == 443:
        context.set_alpn_protocols(["x-amzn-mqtt-ca"])
    try:
        with (
            preflight.connection(host, port, patient.way, 4) as tcp,
            context.wrap_socket(tcp, server_hostname=host) as secure,
        ):
            secure.settimeout(0.5)
            if not secure.recv(1):
                return _turned_away(patient, "the server hung up")
    except TimeoutError:
        return ok("the server completes TLS with it and waits for MQTT (none was sent: nobody is disturbed)")
    except (ssl.SSLError, ConnectionError) as error:
        return _turned_away(patient, getattr(error, "reason", None) or error.strerror or "no connection")
    return ok("the server completes TLS with it")


def _turned_away(patient: Patient, why: str) -> Found:
    assert patient.identity is not None
    command = f"aws iot describe-certificate --certificate-id {patient.identity.certificate_id}"
    return failed(
        f"the certificate {short(patient.identity.certificate_id)} is refused: {why}",
        f"is it ACTIVE? {command}",
        command,
    )


def _path(patient: Patient) -> str:
    assert patient.identity is not None
    return patient.identity.path


def _read(patient: Patient, name: str) -> bytes:
    with open(os.path.join(_path(patient), name), "rb") as file:
        return file.read(1024 * 1024)


CHECKS: tuple[Check[Patient], ...] = (
    Check("drop-directory", "it is there, with its owner and mode", _drop_directory),
    Check("drop-acl", "copied files are kept to their owners", _drop_acl, ("drop-directory",)),
    Check(
        "drop-traps",
        "scp can't be led into another account's file",
        _drop_traps,
    ),
    Check("drop-file-system", "it is on a local file system", _drop_file_system, ("drop-directory",)),
    Check("drop-inotify", "the kernel's limits let it be watched", _inotify, ("drop-directory",)),
    Check("drop-read-right", "the service can read a file of mode 0600", _right_to_read),
    Check("drop-contents", "no stale or half-copied files lie there", _drop_contents, ("drop-directory",)),
    Check("state-directory", "it is there, with its owner and mode", _state_directory),
    Check(
        "state-file-system",
        "it is on a local, lasting, writable file system",
        _state_file_system,
        ("state-directory",),
    ),
    Check(
        "state-write", "a file can be written durably (made and removed)", _writable, ("state-file-system",)
    ),
    Check("state-space", "there are free bytes and inodes", _space, ("state-directory",)),
    Check("state-attempt", "the record of the attempt can be used", _attempt, ("state-directory",)),
    Check("identity", "the identity in force is whole", _identity, ("state-directory",)),
    Check("identity-key", "its key belongs to its certificate", _pair, ("identity",)),
    Check("identity-expiry", "its certificate has not expired", _expiry, ("identity",)),
    Check("identity-modes", "its key is shut to others", _modes, ("identity",)),
    Check("identity-connects", "the endpoint takes it (TLS only)", _connects, ("identity", "network-reach")),
)
