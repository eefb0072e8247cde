"""The sandbox as a whole: its ports, its files, its thread.

On disk, below the directory given: `ca.pem` (what a client must trust), `endpoint.json` (where
everything is), `claimd.toml` (a configuration for claimd), `registry.json`, and `authority/` with the
authorities' keys. Invariant: when `start` returns, all of them are there and the ports take clients.

    with Sandbox.start(directory, Settings(key_kind=KeyKind.EC)) as sandbox:
        claim = sandbox.create_claim()
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from claimd_sandbox import awsapi, control, httpserver, tls
from claimd_sandbox.admission import Admission
from claimd_sandbox.authority import Authority
from claimd_sandbox.broker import Broker
from claimd_sandbox.connection import Core
from claimd_sandbox.faults import Faults
from claimd_sandbox.journal import ConnectionRecord, Journal, OperationRecord
from claimd_sandbox.keys import KeyPool
from claimd_sandbox.listener import Listener
from claimd_sandbox.provisioning import Provisioning
from claimd_sandbox.registry import Registry
from claimd_sandbox.settings import Refusal, Settings

__all__ = ["Sandbox", "Settings"]

_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GRACE = 0.5  # seconds for clients at the stop
CONFIGURATION = """\
# Written by claimd-sandbox: claimd's configuration for this sandbox.
endpoint = {endpoint}
port = {port}
ca_file = {ca_file}

[template]
name = {template}

[template.parameters]
ThingName = "sandbox-device"
"""


class Sandbox:
    """A running sandbox. Its attributes may be used from any thread."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self.directory = directory.resolve()
        self.settings = settings
        self.mqtt_port = settings.mqtt_port
        self.alpn_port = settings.alpn_port
        self.http_port = settings.http_port
        self.directory.mkdir(parents=True, exist_ok=True)
        self._pool = KeyPool(settings.key_kind, settings.spare_keys)
        self.authority = Authority(self.directory / "authority", settings, self._pool)
        self.registry = Registry(self.directory / "registry.json", settings)
        self.faults = Faults()
        self.journal = Journal()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._started = threading.Event()
        self._failure: BaseException | None = None

    @classmethod
    def start(cls, directory: Path, settings: Settings | None = None) -> Sandbox:
        """Run a sandbox in a thread of its own; raises OSError when a port can't be had."""
        sandbox = cls(directory, settings or Settings())
        sandbox._thread = threading.Thread(target=sandbox._run, name="sandbox", daemon=True)
        sandbox._thread.start()
        sandbox._started.wait()
        if sandbox._failure is not None:
            sandbox._thread.join()
            raise sandbox._failure
        return sandbox

    def stop(self) -> None:
        """Close every connection and every port."""
        if self._loop is not None and self._stopping is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # What a test wants to know

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def ca_pem(self) -> str:
        return self.authority.ca_pem

    @property
    def http_url(self) -> str:
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{self.http_port}"

    @property
    def connections(self) -> tuple[ConnectionRecord, ...]:
        return self.journal.connections

    @property
    def operations(self) -> tuple[OperationRecord, ...]:
        return self.journal.operations

    def create_claim(
        self, *, template: str | None = None, account: str | None = None, life: float | None = None
    ) -> dict[str, Any]:
        """A claim, in the form of CreateProvisioningClaim's answer; `life` in seconds, may be negative."""
        owner = self.settings.default_account if account is None else self.settings.account(account)
        return awsapi.create_claim(
            self.settings,
            self.registry,
            self.authority,
            account=owner.id,
            template=template or owner.templates[0].name,
            life=life,
        )

    def describe(self) -> dict[str, Any]:
        """The contents of endpoint.json."""
        settings = self.settings
        return {
            "host": settings.server_name,
            "address": settings.host,
            "mqtt_port": self.mqtt_port,
            "alpn_port": self.alpn_port,
            "http_port": self.http_port,
            "http_url": self.http_url,
            "control_url": f"{self.http_url}/{control.PREFIX}",
            "ca": str(self.ca_file),
            "config": str(self.directory / "claimd.toml"),
            "registry": str(self.directory / "registry.json"),
            "account": settings.default_account.id,
            "template": settings.default_account.templates[0].name,
            "accounts": [
                {
                    "id": account.id,
                    "access_key_id": account.access_key,
                    "endpoint": awsapi.endpoint_of(account, settings),
                    "templates": [item.name for item in self.registry.templates(account.id)],
                }
                for account in settings.accounts
            ],
            "claim_life": settings.claim_life,
            "pid": os.getpid(),
        }

    # The server itself

    def _run(self) -> None:
        try:
            asyncio.run(self.serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._started.set()

    async def serve(
        self, stopping: asyncio.Event | None = None, ready: Callable[[], None] = lambda: None
    ) -> None:
        """Serve in the running loop until `stop` is called or `stopping` is set; calls `ready` once."""
        self._loop, self._stopping = asyncio.get_running_loop(), stopping or asyncio.Event()
        self._pool.start()
        listener = self._listener()
        with_alpn = replace(listener, require_alpn=True)
        servers: list[asyncio.Server] = []
        try:
            self.mqtt_port = await self._listen(listener.serve, self.mqtt_port, servers)
            if self.alpn_port is not None:
                self.alpn_port = await self._listen(with_alpn.serve, self.alpn_port, servers)
            self.http_port = await self._listen(self._serve_http, self.http_port, servers)
            self._write_files()
            self._started.set()
            ready()
            await self._stopping.wait()
        finally:
            for server in servers:
                server.close()
            listener.stop()
            await self._end_clients()
            self._pool.stop()

    async def _listen(self, serve: _Serve, port: int, servers: list[asyncio.Server]) -> int:
        """Add a server; gives its port."""
        host = self.settings.host
        server = await asyncio.start_server(self._tracked(serve), host, port, limit=httpserver.MAX_HEAD)
        servers.append(server)
        number: int = server.sockets[0].getsockname()[1]
        return number

    def _tracked(self, serve: _Serve) -> _Serve:
        """`serve` with its task on our list, so that `_end_clients` finds it."""

        async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._clients.add(task)
            try:
                await serve(reader, writer)
            finally:
                self._clients.discard(task)

        return tracked

    async def _end_clients(self) -> None:
        """Give clients a moment to go by themselves, then cut them off."""
        if self._clients:
            await asyncio.wait(self._clients, timeout=GRACE)
        for task in self._clients:
            task.cancel()
        if self._clients:
            await asyncio.wait(self._clients, timeout=GRACE)

    def _listener(self) -> Listener:
        settings = self.settings
        own_clock = settings.clock is not Settings.clock
        context = tls.server_context(
            self.authority.server_chain,
            self.authority.client_roots,
            # OpenSSL knows the machine's clock only.
            check_time=settings.refusal is Refusal.ALERT and not own_clock,
        )
        core = Core(
            settings=settings,
            faults=self.faults,
            journal=self.journal,
            broker=Broker(settings.clock),
            admission=Admission(settings),
            provisioning=Provisioning(settings, self.registry, self.authority),
        )
        return Listener(core, self.registry, context, require_alpn=settings.mqtt_port == tls.ALPN_PORT)

    async def _serve_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        aws = awsapi.AwsApi(self.settings, self.registry, self.authority, self.faults)
        own = control.Control(self)

        async def route(request: httpserver.Request) -> httpserver.Response:
            handler = own if request.path[:1] == (control.PREFIX,) else aws
            return await handler.handle(request)

        await httpserver.serve(reader, writer, route)

    def _write_files(self) -> None:
        template = self.settings.default_account.templates[0].name
        self._write("ca.pem", self.ca_pem)
        self._write(
            "claimd.toml",
            # JSON's strings are TOML's basic strings.
            CONFIGURATION.format(
                endpoint=json.dumps(self.settings.server_name),
                port=self.mqtt_port,
                ca_file=json.dumps(str(self.ca_file)),
                template=json.dumps(template),
            ),
        )
        self._write("endpoint.json", json.dumps(self.describe(), indent=2) + "\n")

    def _write(self, name: str, text: str) -> None:
        temporary = self.directory / f".{name}.{secrets.token_hex(4)}"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.directory / name)
