"""Builds the .deb packages: `deb.py --arch arm64 --arch amd64 OUTPUT`.

    build/deb/ARCH/root/        what package claimd installs, as it will lie on a device
    build/deb/ARCH/sandbox/     the same for package claimd-sandbox
    build/deb/ARCH/debian/      packaging/debian, and what is generated: changelog, copyright, man pages

Invariant: the same sources give the same bytes, on whatever day and machine. Every wheel is taken by its hash
in requirements/device.lock; every time is SOURCE_DATE_EPOCH; of the build machine only its tools are used.

One directory serves every Python that a supported distribution has: names of extension modules carry their
ABI, so `_pydantic_core.cpython-310-…so` to `-314-…so` lie side by side, and pure modules are of one version.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from email.parser import Parser
from email.utils import formatdate
from pathlib import Path
from typing import Any

import manpages

TOP = Path(__file__).resolve().parents[1]
LOCK = TOP / "requirements/device.lock"

# Newest first: what several have under one name (abi3, pure modules) is the oldest's in the end, which all
# can load. Ubuntu 22.04 has 3.10, Debian 12 3.11, Ubuntu 24.04 3.12, Debian 13 3.13, Ubuntu 26.04 3.14.
PYTHONS = ("3.14", "3.13", "3.12", "3.11", "3.10")


@dataclass(frozen=True)
class Architecture:
    platform: str  # as uv calls it: glibc 2.28 or older, which all of them have
    triplet: str  # of the binutils that strip for it


ARCHITECTURES = {
    "amd64": Architecture("x86_64-manylinux_2_28", "x86_64-linux-gnu"),
    "arm64": Architecture("aarch64-manylinux_2_28", "aarch64-linux-gnu"),
}

# What a device never imports. Each line is flash on every device.
_LEFT_OUT = (
    "*.pyi",
    "py.typed",
    "bin",  # console scripts with the build machine's interpreter in their first line
    "awsiot",  # only its pin of awscrt counts
    "awscrt/_test.py",
    "awscrt/s3.py",
    "awscrt/eventstream",
    "cffi",  # compiles; cryptography loads only _cffi_backend
    "pycparser",  # is for cffi alone
    "pydantic/v1",
    "pydantic/mypy.py",
    "cryptography/hazmat/bindings/_rust",  # types only
    "watchdog/tricks",
    "watchdog/watchmedo.py",
)
_NOT_COMPONENTS = ("awsiotsdk", "pycparser")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", action="append", choices=sorted(ARCHITECTURES), required=True)
    parser.add_argument("--build", type=Path, default=TOP / "build/deb", help="where it is put together")
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    os.umask(0o022)
    epoch = _source_date()
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch)
    options.output.mkdir(parents=True, exist_ok=True)
    for number, arch in enumerate(options.arch):
        _build(arch, options.build / arch, epoch, all_too=number == 0)
        for deb in sorted(options.build.glob("*.deb")):
            shutil.move(deb, options.output / deb.name)
    for deb in sorted(options.output.glob("*.deb")):
        print(f"{hashlib.sha256(deb.read_bytes()).hexdigest()}  {deb}  {_sizes(deb)}")
    return 0


def _source_date() -> int:
    """Of the last commit; from outside when there is no repository."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return int(given or _output("git", "-C", str(TOP), "log", "-1", "--format=%ct"))


def _build(arch: str, place: Path, epoch: int, *, all_too: bool) -> None:
    """`all_too`: claimd-sandbox as well, which is the same for every architecture."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    root, sandbox = place / "root", place / "sandbox"
    vendored = root / "usr/lib/claimd"
    components = vendor(arch, vendored, place / "wheels")
    _strip(arch, vendored)
    _copy_tree("daemon/claimd", vendored / "claimd")
    _copy_tree("daemon/claimd_sandbox", sandbox / "usr/lib/claimd-sandbox/claimd_sandbox")
    install_own_files(root)
    _executable("packaging/launcher/claimd-sandbox", sandbox / "usr/bin/claimd-sandbox")
    document = json.dumps(sbom(components), indent=1, sort_keys=True) + "\n"
    _write(root / "usr/share/claimd/sbom.cdx.json", document)
    debian = place / "debian"
    shutil.copytree(TOP / "packaging/debian", debian)
    version = _version()
    _write(debian / "changelog", _changelog(version, epoch))
    _write(debian / "copyright", (debian / "copyright").read_text() + "".join(map(_licence, components)))
    for kind in ("sysusers", "tmpfiles"):
        shutil.copy(TOP / f"packaging/{kind}.d/claimd.conf", debian / f"claimd.{kind}")
    # Under another name: debhelper would take CHANGELOG.md for Debian's own changelog.
    for name, installed in (("README.md", "README.md"), ("CHANGELOG.md", "NEWS.md")):
        _write(place / "docs" / installed, (TOP / name).read_text())
    for page in sorted((TOP / "docs").glob("*.md")):
        _write(place / "docs" / page.name, page.read_text())
    manpages.write(TOP, debian, version, epoch)
    command = ["dpkg-buildpackage", "-b" if all_too else "-B", "-us", "-uc", "-d", f"-a{arch}"]
    subprocess.run(command, cwd=place, check=True, stdout=sys.stderr)


# ---- dependencies


@dataclass(frozen=True)
class Component:
    name: str
    version: str
    licence: str
    texts: tuple[str, ...]


def vendor(arch: str, target: Path, wheels: Path) -> list[Component]:
    """Every Python's wheels into one directory, without what is left out. What is in it, by name."""
    target.mkdir(parents=True)
    components: dict[str, Component] = {}
    for python in PYTHONS:
        place = wheels / python
        subprocess.run(
            [
                *(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--require-hashes"),
                *("--only-binary", ":all:", "--python-platform", ARCHITECTURES[arch].platform),
                *("--python-version", python, "--link-mode", "copy", "--target", str(place), "-r", str(LOCK)),
            ],
            check=True,
        )
        for found in sorted(place.glob("*.dist-info")):
            component = _component(found)
            if component.name not in _NOT_COMPONENTS:
                known = components.setdefault(component.name, component)
                if known.version != component.version:
                    raise SystemExit(
                        f"{component.name}: {known.version} and {component.version} can't share a directory"
                    )
            shutil.rmtree(found)
        shutil.copytree(place, target, dirs_exist_ok=True)
    for pattern in _LEFT_OUT:
        for path in [*target.glob(pattern), *(target.rglob(pattern) if "/" not in pattern else ())]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for path in [*target.rglob("__pycache__"), *target.glob(".*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return [components[name] for name in sorted(components)]


def _component(dist_info: Path) -> Component:
    metadata = Parser().parsestr((dist_info / "METADATA").read_text())
    licence = metadata["License-Expression"] or metadata["License"] or "see below"
    texts = [
        _without_apache(path.read_text(errors="replace"))
        for path in sorted(dist_info.rglob("*"))
        if path.is_file() and re.match(r"(?i)(licen[cs]e|copying|notice|authors)", path.name)
    ]
    name = str(metadata["Name"]).lower().replace("_", "-")
    return Component(name, str(metadata["Version"]), licence.splitlines()[0], tuple(texts))


# Debian has this one text on every machine, and wants it nowhere else.
_APACHE = "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION"


def _without_apache(text: str) -> str:
    return "Apache-2.0: /usr/share/common-licenses/Apache-2.0" if _APACHE in text else text


def sbom(components: list[Component]) -> dict[str, Any]:
    """A CycloneDX 1.5 bill of materials of what lies in /usr/lib/claimd."""
    listed = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{component.name}@{component.version}",
            "name": component.name,
            "version": component.version,
            "purl": f"pkg:pypi/{component.name}@{component.version}",
            "licenses": [{"license": {"name": component.licence}}],
        }
        for component in components
    ]
    version = _version()
    serial = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps([version, listed], sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": f"claimd@{version}",
                "name": "claimd",
                "version": version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": listed,
        "dependencies": [{"ref": f"claimd@{version}", "dependsOn": [str(one["bom-ref"]) for one in listed]}],
    }


def _strip(arch: str, place: Path) -> None:
    """By the architecture's own strip: another one's breaks what it does not know."""
    tool = f"{ARCHITECTURES[arch].triplet}-strip"
    for path in sorted(place.rglob("*.so*")):
        path.chmod(0o644)
        subprocess.run([tool, "--strip-unneeded", "--enable-deterministic-archives", str(path)], check=True)


# ---- our own files


def install_own_files(root: Path) -> None:
    _executable("packaging/launcher/claimd", root / "usr/bin/claimd")
    _executable("packaging/launcher/claimd.rtupdate", root / "usr/share/python3/runtime.d/claimd.rtupdate")
    for source in sorted((TOP / "packaging/hooks").iterdir()):
        _executable(f"packaging/hooks/{source.name}", root / "usr/share/claimd/hooks" / source.name)
    # For accounts that can only drop: sshd runs the command; the rest is for an administrator to install.
    _executable("packaging/sshd/upload-command", root / "usr/lib/claimd/upload-command")
    for name in ("README.md", "claimd-upload.conf"):
        source = TOP / "packaging/sshd" / name
        _write(root / "usr/share/doc/claimd/examples/sshd" / name, source.read_text())
    # dh_installsystemd of debhelper 13.11 looks in /lib; debian/rules moves them to /usr/lib afterwards.
    for source in sorted((TOP / "packaging/systemd").iterdir()):
        _write(root / "lib/systemd/system" / source.name, source.read_text())
    _write(root / "etc/claimd/claimd.toml", (TOP / "etc/claimd.toml").read_text())
    (root / "etc/claimd/conf.d").mkdir()
    (root / "etc/claimd/hooks.d").mkdir()


def _copy_tree(source: str, target: Path) -> None:
    """What git knows of it: no caches, no leftovers."""
    for name in _output("git", "-C", str(TOP), "ls-files", source).splitlines():
        if not name.endswith("py.typed"):
            _write(target / Path(name).relative_to(source), (TOP / name).read_text())


def _executable(source: str, target: Path) -> None:
    _write(target, (TOP / source).read_text())
    target.chmod(0o755)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _version() -> str:
    return _line("daemon/claimd/__init__.py", r'__version__ = "(.+)"')


def _line(file: str, pattern: str) -> str:
    found = re.search(f"^{pattern}$", (TOP / file).read_text(), re.MULTILINE)
    assert found is not None, (file, pattern)
    return found.group(1)


def _changelog(version: str, epoch: int) -> str:
    # formatdate says -0000, "of no known zone", which dpkg does not take.
    date = formatdate(epoch).replace("-0000", "+0000")
    maintainer = _line("packaging/debian/control", "Maintainer: (.+)")
    return (
        f"claimd ({version}) unstable; urgency=medium\n\n"
        "  * What changed for operators is in /usr/share/doc/claimd/NEWS.md.gz.\n\n"
        f" -- {maintainer}  {date}\n"
    )


def _licence(component: Component) -> str:
    """A vendored package's own words, whole, in the machine-readable form."""
    name = f"{component.licence.split()[0].strip(';,')}-as-in-{component.name}"
    text = "\n".join(component.texts) or f"{component.name} is under {component.licence}."
    lines = "".join(f" {line.rstrip()}\n" if line.strip() else " .\n" for line in text.splitlines())
    top = component.name.replace("-", "_")
    return (
        f"\nFiles: usr/lib/claimd/{top}* usr/lib/claimd/_{top}*\n"
        f"Copyright: the authors of {component.name} {component.version}, as named below\n"
        f"License: {name}\n{lines}"
    )


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _sizes(deb: Path) -> str:
    installed = int(_output("dpkg-deb", "--field", str(deb), "Installed-Size"))
    return f"{deb.stat().st_size / 1e6:.1f} MB to download, {installed * 1024 / 1e6:.1f} MB installed"


if __name__ == "__main__":
    sys.exit(main())
