"""Checks of the clock and of the way to the endpoint. No credentials are shown, no claim is used."""

from __future__ import annotations

import errno
import http.client
import os
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509

from . import endpoint, preflight
from .errors import ClaimdError, Code, problem
from .inquiry import Check, Found, failed, of_problem, ok, skipped, warning
from .inspection import EARLIEST
from .model import spoken

if TYPE_CHECKING:
    from .patient import Patient

CONNECT_SECONDS = 2.0
# TLS itself tolerates nothing; a claim tolerates two minutes, by which it is backdated.
TOLERATED_SECONDS = 60.0
_NTP = "sudo timedatectl set-ntp true"


def _clock(patient: Patient) -> Found:
    now = patient.now()
    if now < EARLIEST:
        return of_problem(problem(Code.CLOCK_WRONG, now=spoken(now)))
    return ok(f"{spoken(now)}, after this program was made")


def _ntp(patient: Patient) -> Found:
    if os.path.exists("/run/systemd/timesync/synchronized"):
        return ok("systemd-timesyncd has set the clock")
    said = patient.ask("timedatectl", "show", "--property=NTPSynchronized", "--value")
    if said is None:
        return skipped("timedatectl does not answer here")
    if said.strip() == "yes":
        return ok("the clock is set by NTP")
    return warning("the clock is not set by NTP", f"switch it on: {_NTP}", _NTP)


def _dns(patient: Patient) -> Found:
    host, port = patient.near  # behind a proxy it is the proxy that looks the endpoint up
    began = time.monotonic()
    found = preflight.addresses(host, port)
    took = time.monotonic() - began
    if not found:
        command = f"getent hosts {host}"
        return failed(f"{host} can't be resolved", f"check the network, then try {command}", command)
    patient.addresses = found
    return ok(f"{', '.join(sorted({str(address[0]) for _, address in found}))} in {took:.1f} s")


def _route(patient: Patient) -> Found:
    ways = []
    for family, address in patient.addresses:
        # Without IPv6 in the kernel the socket is refused already.
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(address)  # a datagram socket: nothing is sent
                ways.append((True, f"{address[0]} from {probe.getsockname()[0]}"))
        except OSError as error:
            ways.append((False, f"{address[0]}: {error.strerror}"))
    text = "; ".join(text for _, text in ways)
    if any(there for there, _ in ways):
        return ok(text)
    return failed(text, "check the default route with ip route", "ip route")


def _tcp(patient: Patient, port: int) -> Found:
    if port not in patient.configured.config.ports:
        return skipped(f"port = {patient.configured.config.port} in the configuration")
    if patient.way is not None:
        return _tunnel(patient, port)
    tried = [(address[0], _connect(family, address, port)) for family, address in patient.addresses]
    good = [host for host, why in tried if not why]
    if good:
        patient.port = patient.port or port
        return ok(f"{good[0]} accepts connections on port {port}")
    return _closed(patient, port, "; ".join(f"{host}: {why}" for host, why in tried))


def _tunnel(patient: Patient, port: int) -> Found:
    assert patient.way is not None
    host = patient.configured.config.endpoint
    try:
        preflight.connection(host, port, patient.way, CONNECT_SECONDS).close()
    except ClaimdError as error:
        others = [p for p in patient.configured.config.ports if p != port]
        found = of_problem(error.problem)
        return warning(found.evidence, f"{found.remedy}; one of the ports is enough") if others else found
    patient.port = patient.port or port
    return ok(f"the proxy {patient.way.place} lets through to {host} port {port}")


def _closed(patient: Patient, port: int, text: str) -> Found:
    host = patient.configured.config.endpoint
    remedy = f"ask for TCP {port} to {host} to be opened"
    others = [p for p in patient.configured.config.ports if p != port]
    return warning(text, f"{remedy}; one of the ports is enough") if others else failed(text, remedy)


def _configured_port(patient: Patient) -> Found:
    return _tcp(patient, patient.configured.config.ports[0])


def _port_443(patient: Patient) -> Found:
    ports = patient.configured.config.ports
    if 443 not in ports[1:]:
        return skipped(f"port = {patient.configured.config.port} in the configuration")
    return _tcp(patient, 443)


def _reachable(patient: Patient) -> Found:
    for port in patient.configured.config.ports:
        if not patient.port:  # with --only nobody has tried yet
            _tcp(patient, port)
    if patient.port:
        return ok(f"port {patient.port}")
    if patient.way is not None:
        return failed("the proxy does not let through to the endpoint", "see network-port and network-443")
    ports = " and ".join(str(port) for port in patient.configured.config.ports)
    host = patient.configured.config.endpoint
    return failed(f"{host} can't be reached on port {ports}", f"ask for TCP {ports} to {host} to be opened")


def _connect(family: Any, address: Any, port: int) -> str:
    """Empty when it works, else why not."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tcp:
            tcp.settimeout(CONNECT_SECONDS)
            tcp.connect((address[0], port, *address[2:]))
    except TimeoutError:
        return f"no answer within {CONNECT_SECONDS:g} s"
    except OSError as error:
        return error.strerror or "no connection"
    return ""


# What costs no connection any time: the next address is tried at once.
_AT_ONCE = [os.strerror(each) for each in (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EAFNOSUPPORT)]


def _ipv6(patient: Patient) -> Found:
    six = [(f, a) for f, a in patient.addresses if f is socket.AF_INET6]
    if not six:
        return ok("the endpoint has no IPv6 address here")
    for family, address in six:
        why = _connect(family, address, patient.port if patient.way is None else patient.way.port)
        if why.startswith("no answer"):
            return warning(
                f"{address[0]} gives no answer: every connection by IPv6 loses seconds",
                "have IPv6 repaired or switched off on this network; claimd goes on with IPv4",
            )
        if why and why not in _AT_ONCE:
            return warning(f"{address[0]}: {why}", "claimd goes on with IPv4")
    return ok("no address swallows connections")


def _proxy(patient: Patient) -> Found:
    named = [n for n in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy") if os.environ.get(n)]
    settings = patient.configured.config.proxy
    if settings.host:
        way = patient.way
        assert way is not None
        if settings.password_file:
            mode = os.stat(patient.layout.under(settings.password_file)).st_mode
            if mode & 0o007:
                command = f"sudo chmod 0640 {settings.password_file}"
                return warning("everybody can read its password", f"run {command}", command)
        return ok(f"{way.place} is configured" + (f", as {way.username}" if way.username else ""))
    if named:
        return warning(
            f"{', '.join(named)} is set for you; claimd does not use the environment's proxy",
            "nothing to do where the endpoint can be reached directly",
        )
    return ok("none is set")


def _handshake(patient: Patient, context: ssl.SSLContext) -> ssl.SSLSocket:
    """TLS on the first port that answered; the caller closes it. Raises OSError, ssl.SSLError."""
    host = patient.configured.config.endpoint
    if patient.port == endpoint.ALPN_PORT:
        context.set_alpn_protocols([endpoint.ALPN_PROTOCOL])
    tcp = preflight.connection(host, patient.port, patient.way, CONNECT_SECONDS * 2)
    return context.wrap_socket(tcp, server_hostname=host)


def _context(roots: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=roots.decode("ascii"))
    return context


def _chain(patient: Patient) -> Found:
    host, port = patient.configured.config.endpoint, patient.port
    alpn = endpoint.ALPN_PROTOCOL if port == endpoint.ALPN_PORT else None
    found = preflight.diagnose(host, port, patient.roots, alpn, patient.way)
    if found is not None:
        return of_problem(found)
    with _handshake(patient, _context(patient.roots)) as secure:
        return ok(f"trusted; anchor: {_anchor(secure)}")


def _anchor(secure: ssl.SSLSocket) -> str:
    """The root's name: of the verified chain where Python shows it, else of what the server sent."""
    # Public since Python 3.13; before that only the inner object has it.
    inner: Any = getattr(secure, "_sslobj", None)
    show = getattr(secure, "get_verified_chain", None) or getattr(inner, "get_verified_chain", None)
    if show is None:
        return "one of ca-bundle"
    last: Any = list(show())[-1]
    der = last if isinstance(last, bytes) else ssl.PEM_cert_to_DER_cert(last.public_bytes())
    return x509.load_der_x509_certificate(der).subject.rfc4514_string()


def _tls_version(patient: Patient) -> Found:
    with _handshake(patient, _context(patient.roots)) as secure:
        alpn = secure.selected_alpn_protocol()
        return ok(f"{secure.version()}" + (f", ALPN {alpn}" if alpn else ""))


def _host_name(patient: Patient) -> Found:
    with _handshake(patient, _context(patient.roots)) as secure:
        peer: Any = secure.getpeercert() or {}
    names = [str(value) for _, value in peer.get("subjectAltName", ())]
    return ok(f"SNI {patient.configured.config.endpoint}; the certificate is for {', '.join(names) or 'it'}")


def _interception(patient: Patient) -> Found:
    """Who signed what the server shows, whether we trust it or not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with _handshake(patient, context) as secure:
            der = secure.getpeercert(binary_form=True) or b""
        issuer = x509.load_der_x509_certificate(der).issuer.rfc4514_string()
    except (ssl.SSLError, ValueError):
        return skipped("no TLS server certificate to look at")
    host = patient.configured.config.endpoint
    trouble = preflight.diagnose(host, patient.port, patient.roots, None, patient.way)
    if trouble is None or trouble.code.value != "tls-untrusted-ca":
        return ok(f"the certificate comes from {issuer}")
    return failed(
        f"the certificate comes from {issuer}, which ca-bundle does not vouch for",
        f"have {host} exempted where a proxy opens TLS; set ca_file if it is the server's own root",
    )


def _offset(patient: Patient) -> Found:
    """AWS's HTTPS side says the time without credentials; else the certificate's own span is a hint."""
    host = patient.configured.config.endpoint
    if patient.way is not None:
        return _span(patient)
    connection = http.client.HTTPSConnection(
        host, 443, timeout=CONNECT_SECONDS, context=_context(patient.roots)
    )
    try:
        connection.request("HEAD", "/")
        date = connection.getresponse().getheader("Date")
        seconds = (patient.now() - parsedate_to_datetime(date or "")).total_seconds()
    except (OSError, http.client.HTTPException, ValueError, TypeError):
        return _span(patient)
    finally:
        connection.close()
    text = f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the server's clock"
    if abs(seconds) > TOLERATED_SECONDS:
        return failed(text, f"set the clock: {_NTP}", _NTP)
    return ok(text)


def _span(patient: Patient) -> Found:
    with _handshake(patient, _context(patient.roots)) as secure:
        peer: Any = secure.getpeercert() or {}
    return ok(
        f"within the server certificate's {peer.get('notBefore')} to {peer.get('notAfter')}; it tells no more"
    )


_TLS = ("network-reach", "ca-bundle")
CHECKS: tuple[Check[Patient], ...] = (
    Check("clock", "the clock is not before this program was made", _clock),
    Check("clock-ntp", "the clock is set by NTP", _ntp),
    Check("network-dns", "the endpoint's name can be resolved", _dns, ("config-parse",)),
    Check("network-route", "there is a way to its addresses", _route, ("network-dns",)),
    Check("network-port", "TCP 8883, or the configured port", _configured_port, ("network-route",)),
    Check("network-443", "TCP 443, for MQTT by ALPN", _port_443, ("network-route",)),
    Check("network-reach", "one of the ports is open", _reachable, ("network-route",)),
    Check("network-ipv6", "no IPv6 address swallows connections", _ipv6, ("network-reach",)),
    Check("network-proxy", "the proxy is the configured one, or there is none", _proxy, ("config-parse",)),
    Check("tls-interception", "nobody opens TLS on the way", _interception, _TLS),
    Check("tls-chain", "the server is one that ca-bundle vouches for", _chain, _TLS),
    Check("tls-host", "its certificate is for the endpoint's name", _host_name, ("tls-chain",)),
    Check("tls-version", "TLS 1.2 or 1.3", _tls_version, ("tls-chain",)),
    Check("clock-offset", "the clock agrees with the server's", _offset, ("tls-chain",)),
)
