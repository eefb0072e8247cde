"""The sandbox's own HTTP calls, below /sandbox, which AWS does not use.

    GET    /sandbox                what runs here (as endpoint.json)
    GET    /sandbox/registry       templates, claims, certificates, things
    GET    /sandbox/journal        connections and operations
    GET    /sandbox/faults         POST {"fault": "reject step=register times=1"}   DELETE [?number=N]
    POST   /sandbox/claims         {"template": T, "account": A, "life": seconds}
    PUT    /sandbox/rules          {"rule": R, "template": T | "certificateId": C, "account": A}

Anybody who reaches the port may use them: the sandbox is for development, and listens on loopback.
Invariant: nothing here gives out a private key but a new claim's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from claimd_sandbox.faults import FaultError
from claimd_sandbox.httpserver import Request, Response
from claimd_sandbox.registry import RegistryError
from claimd_sandbox.settings import ConnectRule

if TYPE_CHECKING:
    from claimd_sandbox.server import Sandbox

PREFIX = "sandbox"


class Control:
    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._routes: dict[tuple[str, str], Callable[[Request], Any]] = {
            ("GET", ""): lambda _: sandbox.describe(),
            ("GET", "registry"): lambda _: sandbox.registry.to_json(),
            ("GET", "journal"): lambda _: sandbox.journal.to_json(),
            ("GET", "faults"): lambda _: sandbox.faults.to_json(),
            ("POST", "faults"): self._set_fault,
            ("DELETE", "faults"): self._clear_faults,
            ("POST", "claims"): self._create_claim,
            ("PUT", "rules"): self._set_rule,
        }

    async def handle(self, request: Request) -> Response:
        route = self._routes.get((request.method, "/".join(request.path[1:])))
        if route is None:
            return Response(404, {"message": "there is no such control call"})
        try:
            return Response(200, await asyncio.get_running_loop().run_in_executor(None, route, request))
        except (FaultError, RegistryError, ValueError) as error:
            return Response(400, {"message": str(error)})

    def _set_fault(self, request: Request) -> Any:
        return {"number": self._sandbox.faults.set(str(request.json().get("fault", "")))}

    def _clear_faults(self, request: Request) -> Any:
        number = request.query.get("number")
        return {"cleared": self._sandbox.faults.clear(None if number is None else int(number))}

    def _create_claim(self, request: Request) -> Any:
        body = request.json()
        life = body.get("life")
        return self._sandbox.create_claim(
            template=body.get("template"),
            account=body.get("account"),
            life=None if life is None else float(life),
        )

    def _set_rule(self, request: Request) -> Any:
        body = request.json()
        self._sandbox.registry.set_connect_rule(
            str(body.get("account") or self._sandbox.settings.default_account.id),
            ConnectRule(body.get("rule")),
            template=body.get("template"),
            certificate_id=body.get("certificateId"),
        )
        return {}
