"""Private keys, made ahead of time.

RSA-2048 takes 10 to 250 ms, which AWS never shows to a device: a thread keeps a few spare keys.
Invariant: a key leaves the pool once.
"""

from __future__ import annotations

import queue
import threading

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from claimd_sandbox.settings import KeyKind

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def make_key(kind: KeyKind) -> PrivateKey:
    if kind is KeyKind.EC:
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private_pem(key: PrivateKey) -> str:
    """PKCS#1 for RSA, as AWS writes it, and SEC1 for EC."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode("ascii")


def public_pem(key: PrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode("ascii")
    )


class KeyPool:
    """Keys of one kind, made by a daemon thread that starts with the first `start()`."""

    def __init__(self, kind: KeyKind, spare: int) -> None:
        self._kind = kind
        self._stopping = threading.Event()
        # EC keys cost microseconds: there is nothing to make ahead.
        self._spare = 0 if kind is KeyKind.EC else spare
        self._keys: queue.Queue[PrivateKey] = queue.Queue(maxsize=max(self._spare, 1))
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._spare and self._thread is None:
            self._thread = threading.Thread(target=self._fill, name="sandbox-keys", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def take(self) -> PrivateKey:
        """A spare key, or a new one made here when none is ready."""
        try:
            return self._keys.get_nowait()
        except queue.Empty:
            return make_key(self._kind)

    def _fill(self) -> None:
        while not self._stopping.is_set():
            key = make_key(self._kind)
            while not self._stopping.is_set():
                try:
                    self._keys.put(key, timeout=0.1)
                    break
                except queue.Full:
                    continue
