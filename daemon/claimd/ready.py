"""Whether a claim that is dropped now would become an identity: what can be known without one.

Invariant: nothing is changed and no claim is used. The checks are those of a pass, in its order: clock,
configuration, parameters, roots, then the name, the port and TLS of the endpoint.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from . import config, endpoint, facts, preflight, proxy
from .connect import PORT_TROUBLES
from .errors import ClaimdError, Code, Problem, problem
from .inspection import EARLIEST
from .model import spoken

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


def trouble_unless(
    interrupted: Callable[[], bool], ask: Callable[[], Problem | None], every_seconds: float = 0.1
) -> tuple[bool, Problem | None]:
    """(whether the answer came, the answer): given up as soon as there is something better to do.

    Raises what `ask` raises: an answer that can't be had is not something better to do.
    """
    answers: queue.SimpleQueue[Problem | Exception | None] = queue.SimpleQueue()

    def answer() -> None:
        try:
            answers.put(ask())
        except Exception as error:  # of another thread, so it is carried to the one who asked
            answers.put(error)

    thread = threading.Thread(target=answer, name="ready", daemon=True)
    thread.start()
    while thread.is_alive() and not interrupted():
        thread.join(every_seconds)
    try:
        found = answers.get_nowait()
    except queue.Empty:
        return False, None
    if isinstance(found, Exception):
        raise found
    return True, found
