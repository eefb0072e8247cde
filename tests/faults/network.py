"""The real SDK, real TLS and MQTT against the sandbox: killed at every boundary, cut at every TLS record.

Invariant: the sandbox's registry is the judge of what was activated, as AWS's would be.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from claimd.errors import Exit
from claimd.pem import parse_certificate
from claimd_sandbox.server import Sandbox, Settings
from claimd_sandbox.settings import KeyKind
from device import Device
from faults.cloud import Known
from faults.judge import Finding, Kind, judge, judge_the_end
from faults.realpass import Ended, Order, Passes
from faults.table import Row
from material import Pair
from relay import Cut, Direction, How, Relay

QUICK = Settings(key_kind=KeyKind.EC, connects_per_second=None, operations_per_second=None)
CONFIGURATION = """\
endpoint = "localhost"
port = {port}
ca_file = "{ca}"
[template]
name = "TrustedUserProvisioningTemplate"
[template.parameters]
ThingName = "{thing}"
[timeouts]
grace_seconds = 0
connect_seconds = {seconds}
answer_seconds = {seconds}
"""
# How long a pass waits for the network: little where silence is the trouble, much where there is none.
SILENCE_SECONDS, PATIENT_SECONDS = 2, 10
LONGEST_RECOVERY = 12
MOSTLY = 0.9


@dataclass
class Bench:
    """A sandbox, a relay before it, and a warm process for passes; one device at a time."""

    place: Path
    sandbox: Sandbox
    relay: Relay
    passes: Passes
    seconds: int = SILENCE_SECONDS
    count: int = 0
    before: frozenset[str] = frozenset()
    ahead: float = 0.0
    claims: list[Pair] = field(default_factory=list)

    def device(self) -> Device:
        """A new one with a claim; the certificates of the earlier ones are none of its business."""
        self.count += 1
        self.ahead = 0.0
        self.claims = []
        device = Device(self.place / f"device-{self.count}")
        device.configure(
            CONFIGURATION.format(
                port=self.relay.port,
                ca=self.sandbox.ca_file,
                thing=f"{self.place.name}-{self.count}",
                seconds=self.seconds,
            )
        )
        self.before = frozenset(c.certificate_id for c in self.sandbox.registry.certificates)
        self.drop(device)
        return device

    def drop(self, device: Device) -> None:
        claim = self.sandbox.create_claim(life=600)
        self.claims.append(Pair(claim["certificatePem"], claim["keyPair"]["PrivateKey"]))
        device.put(f"claim-{len(self.claims)}.json", json.dumps(claim))

    def known(self) -> Known:
        """What the cloud knows of this device."""
        state = Known()
        for certificate in self.sandbox.registry.certificates:
            if certificate.certificate_id in self.before:
                continue
            state.issued[certificate.certificate_id] = parse_certificate(certificate.pem).public_key_id
            if certificate.registered is not None:
                state.activated.add(certificate.certificate_id)
        return state

    def one_pass(self, device: Device, kill_at: int = 0) -> Ended:
        ended = self.passes.run(Order(str(device.root), kill_at, self.ahead))
        self.ahead += max(ended.after_seconds or 0.0, 0.5)
        return ended

    def end_of(self, device: Device, faults: int) -> list[Finding]:
        """Pass after pass, as the watcher does; with the next claim where the device waits for one."""
        ended = None
        for _ in range(LONGEST_RECOVERY):
            ended = self.one_pass(device)
            if ended.exit is None:
                return [Finding(Kind.STUCK, f"the pass broke: wait status {ended.status}")]
            if device.identity.is_symlink() and ended.exit in (Exit.OK, Exit.NOTHING_TO_DO):
                break
            if ended.exit == Exit.NOTHING_TO_DO and len(self.claims) == 1:
                self.drop(device)
        else:
            return [Finding(Kind.STUCK, f"no end: {ended.outcome if ended else ''}")]
        known = self.known()
        findings = judge_the_end(device.root, known, self.claims)
        unused = len(known.issued) - len(known.activated)
        if unused > faults:
            findings.append(Finding(Kind.WASTED, f"{unused} certificates were never used"))
        if len(known.activated) > 1:
            findings.append(Finding(Kind.WASTED, f"{len(known.activated)} certificates were registered"))
        return findings


class Benches:
    """So many at once: a cut is mostly waited for."""

    def __init__(self, place: Path, count: int, seconds: int = PATIENT_SECONDS) -> None:
        self._place = place
        self.count = count
        self._seconds = seconds

    def run(self, points: Sequence[object], strike: Strike) -> Iterator[tuple[object, list[Finding], int]]:
        """Every point on one of the benches, in any order."""
        with ThreadPoolExecutor(self.count) as pool:
            shares = [points[start :: self.count] for start in range(self.count)]
            for found in pool.map(lambda item: self._share(item[0], item[1], strike), enumerate(shares)):
                yield from found

    def _share(
        self, number: int, points: Sequence[object], strike: Strike
    ) -> list[tuple[object, list[Finding], int]]:
        place = self._place / f"bench-{number}"
        found = []
        with (
            Sandbox.start(place / "sandbox", QUICK) as sandbox,
            Relay(sandbox.mqtt_port) as relay,
            Passes() as passes,
        ):
            bench = Bench(place, sandbox, relay, passes, self._seconds)
            for point in points:
                device = bench.device()
                findings, struck = strike(bench, device, point)
                found.append((point, findings, struck))
                shutil.rmtree(device.root)
        return found


class Strike:
    """What is done to a device at one point."""

    def __call__(self, bench: Bench, device: Device, point: object) -> tuple[list[Finding], int]:
        raise NotImplementedError


class KillAt(Strike):
    """SIGKILL at a boundary of the network."""

    def __call__(self, bench: Bench, device: Device, point: object) -> tuple[list[Finding], int]:
        assert isinstance(point, int)
        ended = bench.one_pass(device, kill_at=point)
        if not ended.was_killed:
            return [Finding(Kind.STUCK, f"it was not killed: wait status {ended.status}")], 0
        findings = judge(device.root, bench.known(), bench.claims)
        return findings + bench.end_of(device, faults=1), 1


@dataclass(frozen=True)
class CutAt:
    """`connection`: 0 is the claim's, 1 the identity's."""

    connection: int
    cut: Cut

    def __str__(self) -> str:
        who = ("claim", "identity")[self.connection]
        return f"{who}, {self.cut.direction.value} {self.cut.after}, {self.cut.how.value}"


class Break(Strike):
    """The relay breaks one connection at a TLS record."""

    def __call__(self, bench: Bench, device: Device, point: object) -> tuple[list[Finding], int]:
        assert isinstance(point, CutAt)
        already = bench.relay.cuts
        bench.relay.arm(point.cut, skip=point.connection)
        bench.one_pass(device)
        struck = bench.relay.cuts - already
        bench.relay.disarm()
        findings = judge(device.root, bench.known(), bench.claims)
        return findings + bench.end_of(device, faults=1), struck


def boundaries(place: Path) -> list[str]:
    """Those of a device that is left alone."""
    with (
        Sandbox.start(place / "sandbox", QUICK) as sandbox,
        Relay(sandbox.mqtt_port) as relay,
        Passes() as passes,
    ):
        bench = Bench(place, sandbox, relay, passes, PATIENT_SECONDS)
        ended = bench.one_pass(bench.device())
        assert ended.exit == Exit.OK, ended
        return list(ended.boundaries)


def records(place: Path) -> list[CutAt]:
    """Every TLS record of both connections, each to be broken in five ways.

    The last records of a connection are its farewell: how many of them come is a matter of chance, and
    what comes after DISCONNECT was sent says nothing to anybody.
    """
    with (
        Sandbox.start(place / "sandbox", QUICK) as sandbox,
        Relay(sandbox.mqtt_port) as relay,
        Passes() as passes,
    ):
        bench = Bench(place, sandbox, relay, passes, PATIENT_SECONDS)
        ended = bench.one_pass(bench.device())
        assert ended.exit == Exit.OK, ended
        passages = relay.passages
    points = []
    for number, passage in enumerate(passages[:2]):
        for direction in Direction:
            last = passage.count(direction) - (1 if direction is Direction.UP else 0)
            points += [CutAt(number, Cut(direction, n, how)) for n in range(last) for how in How]
    return points


def kills(place: Path, *, times: int, benches: int = 3, every: int = 1) -> Row:
    row = Row("kill -9: every network boundary, real TLS")
    names = boundaries(place / "map")
    points = [number for _ in range(times) for number in range(1, len(names) + 1)][::every]
    for point, findings, struck in Benches(place, benches).run(points, KillAt()):
        assert isinstance(point, int)
        row.add(f"boundary {point} ({names[point - 1]})", findings, struck=struck)
    return row


def cuts(place: Path, *, benches: int = 6, every: int = 1) -> Row:
    row = Row("chaos relay: every TLS record, five ways")
    points = records(place / "map")[::every]
    for point, findings, struck in Benches(place, benches, SILENCE_SECONDS).run(points, Break()):
        row.add(str(point), findings, struck=struck)
    # A loaded machine puts two packets into one record: the last number of a connection may not come up.
    if row.struck < row.points * MOSTLY:
        row.add("the relay", [Finding(Kind.STUCK, f"only {row.struck} of {row.points} were cut")], struck=0)
    row.note = f"{row.struck} cut"
    return row
