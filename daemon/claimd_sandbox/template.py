"""Provisioning templates: what a template's JSON means for one RegisterThing.

Pure: JSON and parameters in, a `Plan` out. Invariant: a `Plan` contains no unresolved function; what
can't be resolved raises `TemplateError` (the template is wrong) or `ParameterError` (the device is).
Source: AWS IoT Developer Guide, "Provisioning templates".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

MAX_KEY = 2048  # characters of a parameter's name, as the RegisterThing quota has it
MAX_VALUE = 4096
CERTIFICATE_PREFIX = "AWS::IoT::Certificate::"
STATUSES = {"active": "ACTIVE", "inactive": "INACTIVE"}  # AWS's own samples write "Active"
THING_NAME = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_VARIABLE = re.compile(r"\$\{([^}]+)\}")


class TemplateError(ValueError):
    """The template itself can't be used."""


class ParameterError(ValueError):
    """The parameters do not fit the template."""


@dataclass(frozen=True)
class Plan:
    """What RegisterThing has to make."""

    thing_name: str | None
    thing_type: str | None
    attributes: dict[str, str]
    certificate_status: str
    policies: tuple[str, ...]
    device_configuration: dict[str, str]


@dataclass(frozen=True)
class TemplateBody:
    """A template body whose outer structure is valid."""

    parameters: dict[str, str | None]  # name → default
    mappings: dict[str, Json]
    resources: dict[str, dict[str, Json]] = field(default_factory=dict)
    device_configuration: dict[str, Json] = field(default_factory=dict)

    def of_type(self, kind: str) -> list[dict[str, Json]]:
        """The properties of each resource of one type."""
        return [
            _object(resource.get("Properties", {}), "Properties")
            for resource in self.resources.values()
            if resource.get("Type") == kind
        ]


def _object(value: Json, where: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise TemplateError(f"{where} is not a JSON object")
    return value


def parse_template(text: str) -> TemplateBody:
    """Read a template body; raises TemplateError."""
    try:
        document: Json = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TemplateError("the template body is not JSON") from error
    top = _object(document, "the template body")
    known = {"Parameters", "Mappings", "Resources", "DeviceConfiguration"}
    unknown = sorted(set(top) - known)
    if unknown:
        raise TemplateError(f"unknown section {unknown[0]!r}")
    parameters: dict[str, str | None] = {}
    for name, declaration in _object(top.get("Parameters", {}), "Parameters").items():
        declared = _object(declaration, f"parameter {name!r}")
        if declared.get("Type") != "String":
            raise TemplateError(f"parameter {name!r} is not of type String")
        default = declared.get("Default")
        if default is not None and not isinstance(default, str):
            raise TemplateError(f"the default of parameter {name!r} is not a string")
        parameters[name] = default
    resources = {
        name: _object(resource, f"resource {name!r}")
        for name, resource in _object(top.get("Resources", {}), "Resources").items()
    }
    for name, resource in resources.items():
        if resource.get("Type") not in ("AWS::IoT::Thing", "AWS::IoT::Certificate", "AWS::IoT::Policy"):
            raise TemplateError(f"resource {name!r} has an unknown type")
    body = TemplateBody(
        parameters=parameters,
        mappings=_object(top.get("Mappings", {}), "Mappings"),
        resources=resources,
        device_configuration=_object(top.get("DeviceConfiguration", {}), "DeviceConfiguration"),
    )
    if len(body.of_type("AWS::IoT::Certificate")) != 1:
        raise TemplateError("a template needs exactly one AWS::IoT::Certificate")
    if len(body.of_type("AWS::IoT::Thing")) > 1:
        raise TemplateError("a template has at most one AWS::IoT::Thing")
    return body


@dataclass(frozen=True)
class _Scope:
    values: Mapping[str, str]
    mappings: Mapping[str, Json]

    def text(self, value: Json) -> str:
        """A value that must come out as a string."""
        resolved = self.resolve(value)
        if isinstance(resolved, bool) or not isinstance(resolved, (str, int, float)):
            raise TemplateError("a value does not come out as a string")
        return str(resolved)

    def resolve(self, value: Json) -> Json:
        """The value with Ref and Fn::… replaced, in depth."""
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            name, argument = next(iter(value.items()))
            if name == "Ref":
                return self._reference(argument)
            if name.startswith("Fn::"):
                return self._call(name, argument)
        return {key: self.resolve(item) for key, item in value.items()}

    def _reference(self, name: Json) -> str:
        if not isinstance(name, str) or name not in self.values:
            raise TemplateError(f"Ref {name!r} names no parameter")
        return self.values[name]

    def _call(self, name: str, argument: Json) -> Json:
        if name == "Fn::Sub":
            return self._substitute(argument)
        arguments = self.resolve(argument)
        if not isinstance(arguments, list):
            raise TemplateError(f"{name} needs a list")
        if name == "Fn::Join" and len(arguments) == 2 and isinstance(arguments[1], list):
            return self.text(arguments[0]).join(self.text(item) for item in arguments[1])
        if name == "Fn::Split" and len(arguments) == 2 and self.text(arguments[0]):
            return list(self.text(arguments[1]).split(self.text(arguments[0])))
        if name == "Fn::Select" and len(arguments) == 2 and isinstance(arguments[1], list):
            return _select(self.text(arguments[0]), arguments[1])
        if name == "Fn::FindInMap" and len(arguments) == 3:
            return self._find_in_map([self.text(item) for item in arguments])
        raise TemplateError(f"{name} is unknown or has the wrong arguments")

    def _substitute(self, text: Json) -> str:
        if not isinstance(text, str):
            raise TemplateError("Fn::Sub needs a string")
        return _VARIABLE.sub(lambda match: self._reference(match.group(1)), text)

    def _find_in_map(self, path: list[str]) -> Json:
        found: Json = dict(self.mappings)
        for key in path:
            if not isinstance(found, dict) or key not in found:
                raise ParameterError(f"Fn::FindInMap finds no {key!r} in the template's Mappings")
            found = found[key]
        return found


def _select(index: str, items: list[Json]) -> Json:
    if not index.isdecimal() or int(index) >= len(items):
        raise TemplateError("Fn::Select is out of range")
    return items[int(index)]


def check_parameters(body: TemplateBody, given: Mapping[str, str]) -> dict[str, str]:
    """The device's parameters with the template's defaults; raises ParameterError.

    `AWS::IoT::Certificate::…` is filled in by the service, whether the template declares it or not.
    """
    for name, value in given.items():
        if name not in body.parameters or name.startswith("AWS::"):
            raise ParameterError(f"Unknown parameter: {name[:100]}")
        if len(name) > MAX_KEY or len(value) > MAX_VALUE:
            raise ParameterError(f"Parameter too long: {name[:100]}")
    values = {name: default for name, default in body.parameters.items() if default is not None}
    values.update(given)
    for name in body.parameters:
        if name not in values and not name.startswith(CERTIFICATE_PREFIX):
            raise ParameterError(f"Missing required parameter: {name}")
    return values


def evaluate(body: TemplateBody, given: Mapping[str, str], certificate: Mapping[str, str]) -> Plan:
    """What one registration makes; `certificate` holds the AWS::IoT::Certificate::… values."""
    scope = _Scope({**check_parameters(body, given), **certificate}, body.mappings)
    (certificate_properties,) = body.of_type("AWS::IoT::Certificate")
    status = scope.text(certificate_properties.get("Status", "ACTIVE")).lower()
    if status not in STATUSES:
        raise TemplateError("the certificate's Status is neither ACTIVE nor INACTIVE")
    thing_name, thing_type, attributes = _thing(body, scope)
    return Plan(
        thing_name=thing_name,
        thing_type=thing_type,
        attributes=attributes,
        certificate_status=STATUSES[status],
        policies=tuple(_policy(properties, scope) for properties in body.of_type("AWS::IoT::Policy")),
        device_configuration={
            key: scope.text(value) for key, value in sorted(body.device_configuration.items())
        },
    )


def _thing(body: TemplateBody, scope: _Scope) -> tuple[str | None, str | None, dict[str, str]]:
    for properties in body.of_type("AWS::IoT::Thing"):
        name = scope.text(properties.get("ThingName"))
        if not THING_NAME.fullmatch(name):
            raise ParameterError("the thing's name does not match [a-zA-Z0-9:_-]{1,128}")
        thing_type = properties.get("ThingTypeName")
        payload = _object(properties.get("AttributePayload", {}), "AttributePayload")
        attributes = {key: scope.text(value) for key, value in payload.items()}
        return name, None if thing_type is None else scope.text(thing_type), attributes
    return None, None, {}


def _policy(properties: dict[str, Json], scope: _Scope) -> str:
    """The name of a policy; a PolicyDocument makes a policy that AWS names itself."""
    if "PolicyName" in properties:
        return scope.text(properties["PolicyName"])
    if "PolicyDocument" in properties:
        return "inline"
    raise TemplateError("a policy has neither PolicyName nor PolicyDocument")
