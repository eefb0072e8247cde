"""`make fuzz N=1000000`: damaged claims against the parser, in two processes.

Each input must give a Material (nothing raised), in less than 50 ms of the processor and 16 MB; a problem's
text is one of the sentences below with numbers in it, so that no byte of an input can be shown; and what is
taken for a key or a certificate comes out of its own canonical form unchanged. The first bad input is saved
with its seed and number, and ends the run.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import re
import resource
import sys
import time
import tracemalloc
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from claimd import pem
from claimd.errors import Code
from claimd.pem import Material, recognise
from fuzz.claim_mutator import CHUNK, LEAK_CHARACTERS, NAMES, Mutator, secrets

MAX_CPU_SECONDS = 0.05
MAX_BYTES = 16 * 1024 * 1024
# A busy machine makes one measurement long; an expensive input is so every time.
MEASUREMENTS = 4
# One input in so many is also read again from its canonical form.
THOROUGH = 8

_NUMBER = re.compile(r"\d[\d,]*")
_NOUN = "(?:certificate|key|text)"
SENTENCES = re.compile(
    "|".join(
        (
            r"N bytes of at most N",
            r"(?:it looks like|it is) [^\n\\]*",
            r"a block's first line \(-----BEGIN \.\.\.-----\) is missing; copy the text as a whole",
            r"it (?:is empty|stops within a line -----BEGIN \.\.\.-----|stops before its closing bracket)",
            r"it stops (?:after its quotation mark|before the certificate)",
            r"so far it holds only (?:the command, not its answer|the id of a certificate)",
            r"there is no certificate and no private key in it",
            r"it has only certificates of authorities \(CA\); claimd has its own, and needs the claim",
            r"it has only a public key; copy the private key and the certificate",
            r"it has more than N PEM blocks; only the first ones were read",
            r"a passphrase protects it",
            r"DSA|EdN|XN|RSA-PSS|unknown to claimd",
            r"a curve other than P-N, P-N and P-N",
            r"RSA with N bits; N to N are taken",
            r"a certificate in it has N bytes; at most N are read",
            rf"the {_NOUN} is damaged: (?:its contents can't be decoded|its beginning is missing or changed)",
            rf"the {_NOUN} is damaged: it holds neither a certificate nor a key",
            rf"the {_NOUN} is damaged: N of its N characters are missing",
            rf"the {_NOUN} is damaged: it has N characters more than its N",
            rf"the {_NOUN} stops in the middle: (?:it has only begun|N of N characters are here)",
            rf"the {_NOUN} stops in the middle: pasted text was cut; a terminal line holds N characters",
        )
    )
)


class BadInputError(AssertionError):
    """What an input did."""


@dataclass
class Tally:
    """What a run has seen."""

    inputs: collections.Counter[str] = field(default_factory=collections.Counter)
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    slowest_seconds: float = 0.0
    grown_bytes: int = 0

    def add(self, other: Tally) -> None:
        self.inputs += other.inputs
        self.outcomes += other.outcomes
        self.slowest_seconds = max(self.slowest_seconds, other.slowest_seconds)
        self.grown_bytes = max(self.grown_bytes, other.grown_bytes)


def check(data: bytes, secret: frozenset[str], *, thorough: bool) -> tuple[Material, float]:
    """The Material of an input and the processor's seconds for it. Raises BadInputError.

    `thorough`: also whether canonical is canonical, which costs as much again.
    """
    began = time.process_time()
    try:
        found = recognise("name", data)
    except BaseException as error:  # whatever it is: that is the finding
        raise BadInputError(f"it raises {type(error).__name__}") from error
    took = time.process_time() - began
    if took > MAX_CPU_SECONDS:
        took = min(_measured(data) for _ in range(MEASUREMENTS))
        if took > MAX_CPU_SECONDS:
            raise BadInputError(f"it takes {took * 1000:.0f} ms")
    check_texts(found, secret)
    if thorough:
        _check_contents(found)
    return found, took


def _measured(data: bytes) -> float:
    began = time.process_time()
    recognise("name", data)
    return time.process_time() - began


def check_texts(found: Material, secret: frozenset[str]) -> None:
    for problem in found.problems:
        detail = problem.fields.get("detail", "")
        if not SENTENCES.fullmatch(_NUMBER.sub("N", detail)):
            raise BadInputError(f"a sentence that is not known: {problem.code.value}")
        for at in range(len(detail) - LEAK_CHARACTERS + 1):
            if detail[at : at + LEAK_CHARACTERS] in secret:
                raise BadInputError(f"it shows a piece of a key: {problem.code.value}")
    if not (found.problems or found.certificates or found.keys):
        raise BadInputError("nothing was found, and nothing is said of it")


def _check_contents(found: Material) -> None:
    """Canonical is canonical: read again, it is the same."""
    for key in found.keys:
        canonical = key.pem.reveal()
        if pem.parse_private_key(canonical).pem != key.pem:
            raise BadInputError("a key whose canonical form is another key")
        if repr(key).count(canonical[40:60].decode("ascii")):
            raise BadInputError("a key that shows itself")
    for certificate in found.certificates:
        if pem.parse_certificate(certificate.pem) != certificate:
            raise BadInputError("a certificate whose canonical form is another certificate")


def run(seed: int, numbers: range, evidence: Path) -> Tally:
    """Checks the inputs of these numbers. Raises BadInputError, having saved the input."""
    warnings.simplefilter("ignore")
    secret = secrets()
    mutator = Mutator(seed)
    tally = Tally()
    for number in numbers:
        name, data = mutator.make(number)
        try:
            found, took = check(data, secret, thorough=number % THOROUGH == 0)
            grown = _grown(data)
        except BadInputError as error:
            saved = evidence / f"claim-{seed}-{number}"
            saved.write_bytes(data)
            raise BadInputError(
                f"seed {seed}, number {number} ({name}): {error}; saved as {saved}"
            ) from error
        tally.inputs[name] += 1
        tally.outcomes[_outcome(found)] += 1
        tally.slowest_seconds = max(tally.slowest_seconds, took)
        tally.grown_bytes = max(tally.grown_bytes, grown)
    return tally


_peak_bytes = 0


def _grown(data: bytes) -> int:
    """By how much this process's peak grew; with a suspicion, what this one input needs."""
    global _peak_bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    before, _peak_bytes = _peak_bytes or peak, peak
    if peak - before <= MAX_BYTES:
        return peak - before
    tracemalloc.start()
    try:
        recognise("name", data)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if used > MAX_BYTES:
        raise BadInputError(f"it takes {used:,} bytes")
    return used


def _outcome(found: Material) -> str:
    if found.certificates and found.keys:
        return "a certificate and a key"
    if found.keys:
        return "a key"
    if found.certificates:
        return "a certificate"
    return found.problems[0].code.value


def _chunks(count: int) -> list[range]:
    return [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", type=int, help="how many inputs")
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this one input, and nothing else")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--evidence", type=Path, default=Path("."), help="where a bad input is saved")
    options = parser.parse_args(arguments)
    if options.count < 1:
        parser.error("count must be at least 1")
    began = time.monotonic()
    only = options.only
    chunks = _chunks(options.count) if only is None else [range(only, only + 1)]
    total = Tally()
    try:
        with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
            pending = [pool.submit(run, options.seed, chunk, options.evidence) for chunk in chunks]
            try:
                for each in concurrent.futures.as_completed(pending):
                    total.add(each.result())
            except BadInputError:
                pool.shutdown(cancel_futures=True)
                raise
    except BadInputError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    _print(total, options.seed, time.monotonic() - began)
    return 0


def _print(total: Tally, seed: int, seconds: float) -> None:
    print("what was done to the claim     inputs")
    for name in NAMES:
        print(f"  {name.replace('_', ' '):<28} {total.inputs[name]:>8,}")
    print("what it was taken for")
    known = [code.value for code in Code]
    for outcome in sorted(total.outcomes, key=lambda each: (each in known, each)):
        print(f"  {outcome:<28} {total.outcomes[outcome]:>8,}")
    count = sum(total.inputs.values())
    print(
        f"{count:,} inputs of seed {seed} in {seconds:.0f} s: nothing raised, no key shown, at most"
        f" {total.slowest_seconds * 1000:.0f} ms and {total.grown_bytes / 1e6:.1f} MB for one"
    )


if __name__ == "__main__":
    sys.exit(main())
