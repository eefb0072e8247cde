"""Checks of the configuration: can it be read, is it whole, does it fit this device."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import config, endpoint, facts
from .durable import Disk
from .errors import ClaimdError
from .inquiry import Check, Found, of_problem, ok, skipped, warning
from .settings import warnings
from .store import Store

if TYPE_CHECKING:
    from .patient import Patient


def _parse(patient: Patient) -> Found:
    patient.loaded = config.load(patient.layout, patient.config_file)
    files = sorted(set(patient.configured.sources.values()))
    return ok(f"valid, from {', '.join(files)}")


def _layers(patient: Patient) -> Found:
    if patient.config_file is not None:
        return ok("one file was named, no drop-in is read")
    directory = f"{patient.layout.config_directory}/conf.d"
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return ok(f"no {directory}")
    read = [n for n in names if n.endswith(".toml") and not n.startswith(".")]
    other = [n for n in names if n not in read]
    if other:
        return warning(
            f"not read: {', '.join(other)}", f"name a drop-in in {directory} so that it ends in .toml"
        )
    return ok(f"in this order: {', '.join(read)}" if read else f"{directory} is empty")


def _endpoint(patient: Patient) -> Found:
    name = patient.configured.config.endpoint
    found = endpoint.warnings(name)
    command = "aws iot describe-endpoint --endpoint-type iot:Data-ATS"
    if found:
        return warning(found[0], f"compare with {command}", command)
    return ok(f"{name} (region: {endpoint.region(name)})")


def _template(patient: Patient) -> Found:
    return ok(f"{patient.configured.config.template.name}, 1 to 36 letters, digits, _ and -")


def _parameters(patient: Patient) -> Found:
    resolved = facts.resolve_parameters(patient.configured.config, patient.layout)
    return ok(f"{', '.join(name for name, _ in resolved) or 'none'}: filled in on this device")


def _serial(patient: Patient) -> Found:
    chosen = patient.configured.config
    texts = [*chosen.template.parameters.values(), chosen.claim.client_id, chosen.identity.client_id]
    if not any("{serial}" in text for text in texts):
        return skipped("{serial} is not used in the configuration")
    serial = facts.resolve("{serial}", "serial", patient.layout)
    return ok(f"{serial!r}, not a maker's filler")


def _hints(patient: Patient) -> Found:
    found = [w for w in warnings(patient.configured.config) if not w.startswith("endpoint:")]
    return (
        warning("; ".join(found), "look at it with claimd config check", "claimd config check")
        if found
        else ok("none")
    )


def _bundle(patient: Patient) -> Found:
    chosen = patient.configured.config
    patient.roots = config.root_certificates(chosen, patient.layout)
    count = patient.roots.count(b"-----BEGIN CERTIFICATE-----")
    return ok(f"{count} root certificates from {chosen.ca_file or 'the distribution (Amazon, Starfield)'}")


def _same_machine(patient: Patient) -> Found:
    """A disk that was copied to another board would speak in the first one's name."""
    try:
        attempt = Store(patient.layout, Disk()).load_record().attempt
    except (OSError, ClaimdError):
        return skipped("no attempt is recorded, or it can't be read")
    if attempt is None or attempt.target is None:
        return skipped("no parameters are recorded")
    try:
        now = dict(facts.resolve_parameters(patient.configured.config, patient.layout))
    except ClaimdError as error:
        return of_problem(error.problem)
    other = [n for n, value in attempt.target.parameters if n in now and now[n] != value]
    if other:
        return warning(
            f"{', '.join(other)} had another value when this device was registered",
            'if this disk came from another device, give it a claim of its own with reprovision = "replace"',
        )
    return ok("the parameters are those of the registration")


CHECKS: tuple[Check[Patient], ...] = (
    Check("config-parse", "the configuration can be read, and every key is known", _parse),
    Check("config-drop-ins", "drop-ins in conf.d, in their order", _layers),
    Check("config-hints", "nothing in it is allowed and likely a mistake", _hints, ("config-parse",)),
    Check("config-endpoint", "the endpoint looks like one of AWS IoT Core", _endpoint, ("config-parse",)),
    Check("config-template", "the template's name has the right form", _template, ("config-parse",)),
    Check("config-parameters", "this device can fill in every parameter", _parameters, ("config-parse",)),
    Check("config-serial", "the serial number is there and no filler", _serial, ("config-parse",)),
    Check("ca-bundle", "the root certificates can be used", _bundle, ("config-parse",)),
    Check("same-machine", "the device is the one that was registered", _same_machine, ("config-parse",)),
)
