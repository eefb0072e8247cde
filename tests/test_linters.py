"""Style, types, import contracts and the rules of the house, as tests: what CI checks, everybody runs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli

REPOSITORY = Path(__file__).resolve().parent.parent
DAEMON = REPOSITORY / "daemon"
CLAIMD = DAEMON / "claimd"

Call = tuple[Path, int, str]


def _run(*command: str) -> None:
    ended = subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _tracked(pattern: str) -> list[Path]:
    """Files of the repository, without what a build or an editor left lying about."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", pattern],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:  # an unpacked archive
        return [path for path in REPOSITORY.glob(f"**/{pattern}") if ".venv" not in path.parts]
    found = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    return [path for path in found if path.is_file()]


def _modules() -> list[Path]:
    found = sorted(CLAIMD.glob("*.py"))
    assert len(found) > 20, found
    return found


def _contracts() -> dict[str, dict[str, list[str]]]:
    with open(REPOSITORY / "pyproject.toml", "rb") as file:
        contracts = tomli.load(file)["tool"]["importlinter"]["contracts"]
    return {contract["id"]: contract for contract in contracts}


def _ground() -> set[str]:
    return set(_contracts()["floors"]["layers"][-1].split(" : "))


def test_ruff_finds_nothing() -> None:
    _run("-m", "ruff", "check", "--no-cache")


def test_everything_is_formatted() -> None:
    _run("-m", "ruff", "format", "--check", "--no-cache")


def test_types_hold() -> None:
    _run("-m", "mypy")


def test_imports_only_go_down() -> None:
    _run("-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))")


def test_a_broken_contract_is_seen(tmp_path: Path) -> None:
    """The checker itself: an import that goes up is an error."""
    package = tmp_path / "daemon" / "claimd"
    package.mkdir(parents=True)
    for name in ("__init__", "low", "high"):
        (package / f"{name}.py").write_text("from . import high\n" if name == "low" else "")
    (tmp_path / ".importlinter").write_text(
        "[importlinter]\nroot_package = claimd\n"
        "[importlinter:contract:floors]\nname = floors\ntype = layers\ncontainers = claimd\n"
        "layers =\n    high\n    low\n"
    )
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'daemon')!r});"
        "from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr


def test_the_contract_of_purity_is_about_the_whole_ground_floor() -> None:
    pure = {name.removeprefix("claimd.") for name in _contracts()["ground-is-pure"]["source_modules"]}
    assert pure == _ground()


def _calls(paths: list[Path], names: frozenset[str]) -> Iterator[Call]:
    """Calls of `x.name(...)` or `name(...)` by their last name."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func
                name = getattr(called, "attr", getattr(called, "id", ""))
                if name in names:
                    yield path, node.lineno, ast.unparse(node)


def test_the_ground_floor_asks_no_clock() -> None:
    ground = [CLAIMD / f"{name}.py" for name in _ground()]
    assert list(_calls(ground, frozenset(("now", "utcnow", "today", "fromtimestamp")))) == []


_CHANGING = frozenset(
    [
        *("rename", "renames", "move", "copy", "copyfile", "unlink", "remove", "rmtree"),
        *("mkdir", "makedirs", "rmdir", "removedirs", "symlink", "link", "mkfifo", "mknod"),
        *("chmod", "fchmod", "chown", "fchown", "lchown", "truncate", "ftruncate"),
        *("fsync", "fdatasync", "touch", "write_text", "write_bytes"),
    ]
)


def test_only_durable_changes_the_disk() -> None:
    # The service's own directory below --root, where no tmpfiles.d makes it; /run is not kept anyway.
    others = [path for path in _modules() if path.name not in ("durable.py", "supervision.py")]
    found = [call for call in _calls(others, _CHANGING) if re.match(r"(os|shutil|\w*[Pp]ath.*)\.", call[2])]
    assert found == []


def test_only_durable_opens_files_for_writing() -> None:
    others = [path for path in _modules() if path.name != "durable.py"]
    writing = re.compile(r"open\(.*(['\"][rwax+bt]*[wax+][bt+]*['\"]|O_WRONLY|O_RDWR\b(?!.*O_NOFOLLOW))")
    allowed = {
        "supervision.py",  # the lock of the service, which holds a process id
        "cli.py",  # /dev/null, when the reader of our output went away
        "terminal.py",  # the same, in the middle of a pass
    }
    found = [
        call
        for call in _calls(others, frozenset(("open",)))
        if writing.search(call[2]) and call[0].name not in allowed
    ]
    assert found == []


def test_every_module_says_its_purpose() -> None:
    for path in [*_modules(), *sorted((DAEMON / "claimd_sandbox").glob("*.py"))]:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path}: no docstring"


def test_modules_are_named_for_the_domain() -> None:
    assert not {path.stem for path in _modules()} & {
        "utils",
        "util",
        "helpers",
        "helper",
        "manager",
        "common",
    }


LOCKS = ("build", "demo", "dev", "device")


def test_every_lock_is_looked_at() -> None:
    assert sorted(path.stem for path in (REPOSITORY / "requirements").glob("*.lock")) == sorted(LOCKS)


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_have_hashes_and_name_no_registry(lock: str) -> None:
    text = (REPOSITORY / "requirements" / f"{lock}.lock").read_text(encoding="utf-8")
    requirements = [block for block in re.split(r"\n(?=\S)", text) if block.strip()]
    assert requirements
    for block in requirements:
        assert re.match(r"[a-z0-9.-]+==[^ ]+", block), block
        assert "--hash=sha256:" in block, block
    assert "://" not in text
    assert "index" not in text.replace("importlib", "")


def _pins(lock: str) -> set[str]:
    text = (REPOSITORY / "requirements" / f"{lock}.lock").read_text(encoding="utf-8")
    found = set(re.findall(r"^[a-z0-9.-]+==\S+", text, re.MULTILINE))
    assert found, f"{lock}.lock pins nothing"
    return found


@pytest.mark.parametrize("lock", ["demo", "device"])
def test_what_is_installed_is_what_the_tests_were_run_with(lock: str) -> None:
    assert _pins(lock) <= _pins("dev")


def test_a_device_has_what_the_demo_showed() -> None:
    assert _pins("device") <= _pins("demo")


def test_shell_scripts_parse() -> None:
    scripts = [path for path in _tracked("*") if _is_shell(path)]
    assert REPOSITORY / ".ci" / "run" in scripts
    for script in scripts:
        shell = "bash" if b"bash" in script.read_bytes().split(b"\n")[0] else "sh"
        checked = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr


def _is_shell(path: Path) -> bool:
    with open(path, "rb") as file:
        return re.match(rb"#! ?/\S*(ba|da)?sh\b|#! ?/usr/bin/env (ba)?sh\b", file.readline()) is not None


def test_nothing_is_left_to_be_done() -> None:
    words = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    for path in _tracked("*"):
        if path.suffix in (".py", ".toml", ".md", ".sh", ".service", "") and path.name != "LICENSE":
            found = words.search(path.read_text(encoding="utf-8", errors="replace"))
            assert found is None, f"{path}: {found}"


def test_the_package_holds_nothing_else() -> None:
    others = {path.name for path in _tracked("daemon/claimd/*") if path.suffix != ".py"}
    assert others == {"py.typed", "status.schema.json"}


def test_no_two_test_modules_have_one_name() -> None:
    """pytest imports them by name alone, and stops at the second one."""
    tests = REPOSITORY / "tests"
    modules = [p for p in tests.rglob("test_*.py") if not (p.parent / "__init__.py").exists()]
    names = [path.name for path in modules]
    assert sorted(names) == sorted(set(names))
