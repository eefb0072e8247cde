"""The MQTT port: TCP accepted first, TLS next, then the client's certificate is judged.

Invariant: every TCP connection gets a record in the journal, and its record says how it ended.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass, field

from claimd_sandbox.connection import Connection, Core
from claimd_sandbox.ending import LostError
from claimd_sandbox.faults import Effects, Step, When, Who
from claimd_sandbox.identity import Refused, identify
from claimd_sandbox.packets import Reason
from claimd_sandbox.registry import Registry
from claimd_sandbox.settings import Refusal
from claimd_sandbox.tls import ALPN, NO_APPLICATION_PROTOCOL, HandshakeError, Hello, TlsStream

log = logging.getLogger("claimd_sandbox")


STOPPED = "the sandbox stopped"


@dataclass(frozen=True)
class Listener:
    """Serves each TCP connection that asyncio accepts."""

    core: Core
    registry: Registry
    context: ssl.SSLContext
    require_alpn: bool
    clients: set[Connection] = field(default_factory=set)

    def stop(self) -> None:
        """Say good-bye to everybody."""
        for client in self.clients:
            client.hang_up(STOPPED, Reason.SERVER_SHUTTING_DOWN)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        settings, journal = self.core.settings, self.core.journal
        peer = writer.get_extra_info("peername") or ("?", 0)
        number = journal.open(f"{peer[0]}:{peer[1]}", settings.clock())
        stream = TlsStream(reader, writer, self.context)
        end = STOPPED
        try:
            end = await self._serve(number, stream)
        except HandshakeError as error:
            end = f"TLS failed: {error}"
            journal.note(number, handshake_error=str(error))
        except LostError as error:
            end = str(error)
        except asyncio.CancelledError:
            pass  # only the stop of the sandbox cancels, and it wants nothing but the end
        except Exception:
            end = "the sandbox failed"
            log.exception("connection %d: the sandbox failed", number)
        finally:
            journal.close(number, settings.clock(), end)
            await stream.close()

    async def _serve(self, number: int, stream: TlsStream) -> str:
        """Gives why the connection ended."""
        settings, journal = self.core.settings, self.core.journal
        effects = self.core.faults.at(Step.ACCEPT, Who.ANY)
        await asyncio.sleep(effects.delay_before)
        if effects.hang_up is not None:
            return "fault on request: hang-up before TLS"
        try:
            hello = await asyncio.wait_for(self._handshake(number, stream), settings.connect_timeout)
        except asyncio.TimeoutError:
            raise HandshakeError(f"no TLS within {settings.connect_timeout:g} s") from None
        account = settings.account_by_server_name(hello.server_name).id
        identity = identify(stream.peer_certificate, account, self.registry, settings)
        journal.note(
            number,
            tls_version=stream.version,
            certificate_id=identity.certificate_id,
            account=account,
            principal=None if isinstance(identity, Refused) else identity.who.value,
        )
        if isinstance(identity, Refused) and settings.refusal is Refusal.HANG_UP:
            return identity.why
        who = Who.ANY if isinstance(identity, Refused) else identity.who
        stop = await self._faults_after_tls(self.core.faults.at(Step.TLS, who))
        if stop is not None:
            return stop
        client = Connection(self.core, stream, number, identity)
        self.clients.add(client)
        try:
            return await client.run()
        finally:
            self.clients.discard(client)

    async def _handshake(self, number: int, stream: TlsStream) -> Hello:
        hello = await stream.hello()
        self.core.journal.note(number, server_name=hello.server_name, alpn=hello.alpn)
        if (hello.alpn or self.require_alpn) and ALPN not in hello.alpn:
            stream.alert(NO_APPLICATION_PROTOCOL)
            raise HandshakeError(f"the client offers ALPN {list(hello.alpn)!r}, and {ALPN!r} is needed")
        await stream.handshake()
        return hello

    @staticmethod
    async def _faults_after_tls(effects: Effects) -> str | None:
        await asyncio.sleep(effects.delay_before)
        return None if effects.hang_up is None else f"fault on request: hang-up {When.AFTER.value} TLS"
