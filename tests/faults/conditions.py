"""Bad networks, each with the outcome that it must have: the real SDK in a network namespace of its own.

    python -m faults.conditions [WORD]     prints the rows as JSON; needs root. WORD: in their names

The sandbox, the relay and claimd all live in a namespace that has loopback alone; nftables drops and
rejects there, and a private mount namespace has an /etc/hosts of our own. All of it is gone when the
process ends. What a user-space relay can do (delay, a slow line) is done by a relay.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from claimd.errors import Exit
from claimd_sandbox.server import Sandbox
from device import Device, wait_for
from faults.judge import Finding, Kind, judge
from faults.network import QUICK, Bench
from faults.realpass import Ended, Passes
from faults.table import Row
from proxies import ConnectProxy
from relay import Relay

_NEW_NETWORK, _NEW_MOUNTS = 0x40000000, 0x00020000  # CLONE_NEWNET, CLONE_NEWNS: sched.h
_BIND, _PRIVATE, _RECURSIVE = 1 << 12, 1 << 18, 1 << 14  # MS_BIND, MS_PRIVATE, MS_REC
_libc = ctypes.CDLL(None, use_errno=True)
BITS_A_BYTE = 10  # a start bit and a stop bit
HOSTS = "127.0.0.1 localhost\n"


@dataclass(frozen=True)
class Condition:
    """`first`: codes that the first pass may end with; "" is done. `passes`: to the end, at most."""

    name: str
    trouble: Callable[[Laboratory], object]
    first: frozenset[str]
    heals: bool = True


class Laboratory:
    """The namespace, and what can be done to it."""

    def __init__(self, place: Path, bench: Bench, hosts: Path) -> None:
        self.place = place
        self.bench = bench
        self._hosts = hosts

    def heal(self) -> None:
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        self.hosts(HOSTS)
        self.bench.relay.delay = 0.0

    def hosts(self, text: str) -> Laboratory:
        self._hosts.write_text(text)
        return self

    def filter(self, rule: str) -> Laboratory:
        text = f"table inet f {{ chain in {{ type filter hook input priority 0; {rule}; }}\n}}\n"
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
        return self

    def met(self) -> bool:
        """Whether the rules, if there are any, have met a packet."""
        said = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
        counted = [int(number) for number in re.findall(r"counter packets (\d+)", said)]
        return not counted or sum(counted) > 0

    @property
    def port(self) -> int:
        return self.bench.relay.port

    def delay(self, seconds: float) -> None:
        self.bench.relay.delay = seconds


class SlowLine:
    """Passes on so many bytes a second, each direction for itself, to `target`."""

    def __init__(
        self, target: int, bytes_a_second: float, family: socket.AddressFamily = socket.AF_INET
    ) -> None:
        self._target, self._rate = target, bytes_a_second
        loopback = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self._listener = socket.create_server((loopback, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        self.passed = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        step = 32
        try:
            while data := one.recv(step):
                time.sleep(len(data) / self._rate)
                other.sendall(data)
                self.passed += len(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other side has gone


DONE = frozenset({""})
CONDITIONS: Sequence[Condition] = (
    Condition(
        "blackhole: nothing comes back",
        lambda lab: lab.filter(f"tcp dport {lab.port} counter drop"),
        frozenset({"endpoint-unreachable", "tls-no-answer", "no-answer"}),
    ),
    Condition(
        "refused: the port is closed",
        lambda lab: lab.filter(f"tcp dport {lab.port} counter reject with tcp reset"),
        frozenset({"connection-refused"}),
    ),
    Condition(
        "20 % loss, both ways",
        lambda lab: lab.filter(
            f"tcp dport {lab.port} numgen random mod 5 == 0 counter drop; tcp sport {lab.port} "
            "numgen random mod 5 == 0 counter drop"
        ),
        DONE | {"endpoint-unreachable", "tls-no-answer", "no-answer", "connection-lost", "identity-unproven"},
        heals=False,
    ),
    Condition("300 ms delay, one way", lambda lab: lab.delay(0.3), DONE, heals=False),
    Condition("DNS fails, and heals", lambda lab: lab.hosts(""), frozenset({"dns-failed"})),
    Condition(
        "DNS never answers, and heals",
        lambda lab: lab.hosts("").filter("udp dport 53 counter drop; tcp dport 53 counter drop"),
        frozenset({"dns-failed"}),
    ),
    # The SDK takes the addresses of a name in turn: one of these two meets the dead one with its claim, the
    # other one with its new identity.
    Condition(
        "the first of two addresses is dead",
        lambda lab: lab.hosts("127.0.0.2 localhost\n127.0.0.1 localhost\n").filter(
            f"ip daddr 127.0.0.2 tcp dport {lab.port} counter drop"
        ),
        DONE,
        heals=False,
    ),
    Condition(
        "the last of two addresses is dead",
        lambda lab: lab.hosts("127.0.0.1 localhost\n127.0.0.2 localhost\n").filter(
            f"ip daddr 127.0.0.2 tcp dport {lab.port} counter drop"
        ),
        DONE,
        heals=False,
    ),
    Condition(
        "IPv6 comes first and leads nowhere",
        lambda lab: lab.hosts("::1 localhost\n127.0.0.1 localhost\n").filter(
            f"ip6 daddr ::1 tcp dport {lab.port} counter drop"
        ),
        DONE,
        heals=False,
    ),
)


def why_not() -> str | None:
    if os.geteuid() != 0:
        return "skipped: only root can make a network namespace"
    for program in ("nft", "ip"):
        if shutil.which(program) is None:
            return f"skipped: no {program}"
    return None


@contextmanager
def laboratory(place: Path) -> Iterator[Laboratory]:
    """Call it in a process that may be spoilt: it stays in the namespaces."""
    _check(_libc.unshare(_NEW_NETWORK | _NEW_MOUNTS))
    _check(_libc.mount(None, b"/", None, _PRIVATE | _RECURSIVE, None))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    hosts, resolver = place / "hosts", place / "resolv.conf"
    hosts.write_text(HOSTS)
    resolver.write_text("nameserver 127.0.0.1\n")
    for ours, theirs in ((hosts, "/etc/hosts"), (resolver, "/etc/resolv.conf")):
        _check(_libc.mount(str(ours).encode(), os.path.realpath(theirs).encode(), None, _BIND, None))
    with (
        Sandbox.start(place / "sandbox", replace(QUICK, alpn_port=443)) as sandbox,
        Relay(sandbox.mqtt_port) as relay,
        Passes() as passes,
    ):
        yield Laboratory(place, Bench(place, sandbox, relay, passes), hosts)


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def patient(device: Device, port: int, old: int) -> None:
    """As claimd's own default: the sweeps' two seconds are no network's."""
    path = Path(device.layout.config_file)
    text = path.read_text().replace(f"port = {old}", f"port = {port}")
    text = text.replace("connect_seconds = 2", "connect_seconds = 20")
    device.configure(text.replace("answer_seconds = 2", "answer_seconds = 20"))


def met(lab: Laboratory, condition: Condition) -> Row:
    """One condition: the first pass as expected, then the end by itself with the claim that it had."""
    row = Row(f"network: {condition.name}")
    device = lab.bench.device()
    patient(device, lab.port, lab.port)
    lab.heal()
    condition.trouble(lab)
    began = time.monotonic()
    first = lab.bench.one_pass(device)
    took = time.monotonic() - began
    findings = _first(first, condition) + judge(device.root, lab.bench.known(), lab.bench.claims)
    if condition.heals:
        struck = lab.met()
        lab.heal()
    findings += lab.bench.end_of(device, faults=1)
    if len(lab.bench.claims) > 1:
        findings.append(Finding(Kind.WASTED, "a second claim was needed"))
    if not condition.heals:
        struck = lab.met()
    lab.heal()
    row.add(condition.name, findings, struck=int(struck))
    row.note = f"first pass: {first.outcome or 'done'} in {took:.1f} s; then provisioned"
    return row


def _first(ended: Ended, condition: Condition) -> list[Finding]:
    if ended.outcome in condition.first and ended.exit in (Exit.OK, Exit.RETRY):
        return []
    wanted = ", ".join(sorted(code or "done" for code in condition.first))
    return [Finding(Kind.STUCK, f"expected {wanted}; it was {ended.outcome or 'done'}, exit {ended.exit}")]


def slow_line(lab: Laboratory) -> Row:
    """9,600 baud both ways, from the first byte to the last."""
    row = Row("network: a line of 9,600 baud")
    device = lab.bench.device()
    line = SlowLine(lab.bench.sandbox.mqtt_port, 9600 / BITS_A_BYTE)
    patient(device, line.port, lab.port)
    began = time.monotonic()
    findings = lab.bench.end_of(device, faults=0)
    line.close()
    row.add("9,600 baud", findings, struck=int(line.passed > 0))
    row.note = f"provisioned in {time.monotonic() - began:.1f} s, {line.passed} bytes"
    return row


def ipv6_alone(lab: Laboratory) -> Row:
    """A name with an IPv6 address and no other, and nothing that answers on IPv4."""
    row = Row(f"network: {IPV6_ALONE}")
    device = lab.bench.device()
    line = SlowLine(lab.bench.sandbox.mqtt_port, float("inf"), socket.AF_INET6)
    patient(device, line.port, lab.port)
    lab.hosts("::1 localhost\n")
    findings = lab.bench.end_of(device, faults=0)
    line.close()
    lab.heal()
    row.add(IPV6_ALONE, findings, struck=int(line.passed > 0))
    row.note = "provisioned"
    return row


def proxy_dies(lab: Laboratory) -> Row:
    """While RegisterThing is on its way; the attempt goes on with what it has when the proxy is back."""
    row = Row(f"network: {PROXY_DIES}")
    device = lab.bench.device()
    patient(device, lab.port, lab.port)
    with ConnectProxy() as proxy:
        path = Path(device.layout.config_file)
        device.configure(f'{path.read_text()}[proxy]\nhost = "127.0.0.1"\nport = {proxy.port}\n')
        lab.bench.sandbox.faults.set("delay step=register ms=60000 times=1")
        ended: list[Ended] = []
        passing = threading.Thread(target=lambda: ended.append(lab.bench.one_pass(device)))
        passing.start()
        wait_for(lambda: (device.status()["attempt"] or {}).get("state") == "registering", "registering")
        proxy.stop()
        passing.join()
        lab.bench.sandbox.faults.clear()
        ended.append(lab.bench.one_pass(device))
        findings = judge(device.root, lab.bench.known(), lab.bench.claims)
        for one, codes in zip(
            ended, ({"connection-lost", "proxy-unreachable"}, {"proxy-unreachable"}), strict=True
        ):
            if one.outcome not in codes or one.exit != Exit.RETRY:
                findings.append(Finding(Kind.STUCK, f"{one.outcome or 'done'}, exit {one.exit}"))
        proxy.start()
        findings += lab.bench.end_of(device, faults=0)
    row.add(PROXY_DIES, findings, struck=len(ended) - 1)
    row.note = f"passes: {', '.join(one.outcome for one in ended)}; then provisioned"
    return row


IPV6_ALONE = "IPv6 alone"
PROXY_DIES = "the proxy dies, and comes back"
WEB_ALONE = "8883 leads nowhere, 443 is open"
# Twice a look at a dead port, 2 s each, and the rest of a pass; a machine under load is no network.
WEB_ALONE_SECONDS = 30.0


def web_alone(lab: Laboratory) -> Row:
    """A firewall that lets only web traffic out: done in one pass, by ALPN."""
    row = Row(f"network: {WEB_ALONE}")
    device = lab.bench.device()
    patient(device, lab.port, lab.port)
    path = Path(device.layout.config_file)
    device.configure(path.read_text().replace(f"port = {lab.port}\n", 'port = "auto"\n'))
    lab.filter("tcp dport 8883 counter drop")
    began = time.monotonic()
    first = lab.bench.one_pass(device)
    took = time.monotonic() - began
    findings = judge(device.root, lab.bench.known(), lab.bench.claims)
    if first.outcome or first.exit != Exit.OK or took > WEB_ALONE_SECONDS:
        findings.append(Finding(Kind.STUCK, f"{first.outcome or 'done'}, exit {first.exit}, {took:.1f} s"))
    findings += lab.bench.end_of(device, faults=0)
    row.add(WEB_ALONE, findings, struck=int(lab.met()))
    lab.heal()
    row.note = f"first pass: {first.outcome or 'done'} in {took:.1f} s"
    return row


def all_of_them(place: Path, word: str) -> list[Row]:
    with laboratory(place) as lab:
        rows = [met(lab, condition) for condition in CONDITIONS if word in condition.name]
        for name, play in ((IPV6_ALONE, ipv6_alone), (PROXY_DIES, proxy_dies), (WEB_ALONE, web_alone)):
            rows += [play(lab)] if word in name else []
        return rows if word else [*rows, slow_line(lab)]


def rows_of_a_program(word: str = "") -> list[Row]:
    """In a process of its own, because a namespace is for good."""
    reason = why_not()
    if reason is not None:
        return [Row("network: bad networks", note=reason)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "faults.conditions", word]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    rows = json.loads(ended.stdout.splitlines()[-1])
    return [Row(**{**r, "found": {Kind(k): count for k, count in r["found"].items()}}) for r in rows]


def main() -> None:
    logging.disable()
    with tempfile.TemporaryDirectory(prefix="claimd-network-") as place:
        rows = all_of_them(Path(place), sys.argv[1] if len(sys.argv) > 1 else "")
    print(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    main()
