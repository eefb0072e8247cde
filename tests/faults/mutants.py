"""claimd with one promise broken on purpose: what the harness must not let pass."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from claimd.durable import Calls, Disk, File
from claimd.fleet import IssuedKeys
from claimd.model import Claim, Layout
from claimd.store import StagedIdentity, Store


class InPlaceDisk(Disk):
    """Overwrites a file where it lies, as ofstream does."""

    def __init__(self, calls: Calls, token: Any) -> None:
        super().__init__(calls, token)
        self._raw = calls

    def write_file(self, path: str, data: bytes, mode: int) -> None:
        fd = self._raw.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        self._raw.write(fd, data)
        self._raw.fsync(fd)
        self._raw.close(fd)


class ChmodLaterDisk(Disk):
    """Makes a file as the umask says, and sets its mode once everything is written."""

    def __init__(self, calls: Calls, token: Any) -> None:
        super().__init__(calls, token)
        self._raw = calls

    def make_tree(self, path: str, files: Mapping[str, File], mode: int) -> None:
        super().make_tree(path, {name: File(file.data, 0o644) for name, file in files.items()}, mode)
        for name, file in files.items():
            fd = self._raw.open(os.path.join(path, name), os.O_RDONLY)
            self._raw.fchmod(fd, file.mode)
            self._raw.close(fd)


class NoFileSyncDisk(Disk):
    """Renames without waiting for the data."""

    def _create(self, path: str, data: bytes, mode: int, *, sync: bool) -> None:
        super()._create(path, data, mode, sync=False)


class NoDirectorySyncDisk(Disk):
    """Waits for the data, and never for the names."""

    def sync_directory(self, path: str) -> None:
        pass


class LateStore(Store):
    """`stage` moved behind the registration: the key is in memory alone while RegisterThing is asked."""

    def __init__(self, layout: Layout, disk: Disk) -> None:
        super().__init__(layout, disk)
        self._in_memory: dict[str, tuple[IssuedKeys, bytes]] = {}

    def stage(self, issued: IssuedKeys, roots: bytes, *more: Any, **named: Any) -> None:
        self._in_memory[issued.certificate_id] = (issued, roots)

    def load_staged(self, certificate_id: str) -> StagedIdentity:
        if certificate_id not in self._in_memory:
            return super().load_staged(certificate_id)
        issued, roots = self._in_memory[certificate_id]
        return StagedIdentity(certificate_id, "", issued.certificate, issued.key.pem, roots, issued.token)

    def complete(self, certificate_id: str, document: Mapping[str, Any]) -> None:
        if certificate_id in self._in_memory:
            super().stage(*self._in_memory.pop(certificate_id))
        super().complete(certificate_id, document)


class HastyStore(Store):
    """`claimd forget` takes its intent back before it has destroyed anything."""

    def forget(self) -> None:
        self.disk.remove_file(self.layout.forgetting_file)
        super().forget()


class WastefulStore(Store):
    """A claim that comes to a provisioned device is not kept."""

    def secure_claim(self, claim: Claim) -> None:
        if self.current_link() is None:
            super().secure_claim(claim)
