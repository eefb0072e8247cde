"""Whether a claim that is dropped now would become an identity: what can be known without one.

Invariant: nothing is changed and no claim is used. The checks are those of a pass, in its order: clock,
configuration, parameters, roots, then the name, the port and TLS of the endpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import config, endpoint, facts, preflight, proxy
from .connect import PORT_TROUBLES
from .errors import ClaimdError, Code, Problem, problem
from .inspection import EARLIEST
from .model import spoken
from .preflight import trouble_unless as trouble_unless

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from .model import Layout


def trouble(
    layout: Layout,
    config_file: str | None,
    now: datetime,
    diagnose: Callable[[str, int, bytes], Problem | None] | None = None,
) -> Problem | None:
    """What a claim would fail of, or None. Takes some seconds where the network is silent."""
    if now < EARLIEST:
        return problem(Code.CLOCK_WRONG, now=spoken(now))
    try:
        loaded = config.load(layout, config_file)
        facts.resolve_parameters(loaded.config, layout)
        roots = config.root_certificates(loaded.config, layout)
        way = proxy.read(loaded.config.proxy, layout)
    except ClaimdError as error:
        return error.problem
    found: Problem | None = None
    for port in loaded.config.ports:
        if diagnose is not None:
            this = diagnose(loaded.config.endpoint, port, roots)
        else:
            alpn = endpoint.ALPN_PROTOCOL if port == endpoint.ALPN_PORT else None
            this = preflight.diagnose(loaded.config.endpoint, port, roots, alpn, way)
        if this is None:
            return None
        found = found or this
        if this.code not in PORT_TROUBLES:
            break
    return found
