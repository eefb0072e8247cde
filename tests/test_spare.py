"""A module that is spared costs nothing and is there all the same. In processes of their own: the test
runner has imported everything long ago."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> str:
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_importing_it_imports_nothing_below_it() -> None:
    code = (
        "import sys; from claimd.spare import spare; spare('inspect'); import dataclasses;"
        "Documented = dataclasses.make_dataclass('D', ['a'], namespace={'__doc__': 'd'});"
        "print(Documented(1).a, 'dis' in sys.modules)"
    )
    assert run(code) == "1 False"


def test_annotations_are_told_without_it() -> None:
    """dataclasses of Python 3.13 asks for those of every class; for anything else the real one answers."""
    code = (
        "import sys; from claimd.spare import spare; spare('inspect'); import inspect as early;"
        "C = type('C', (), {'__annotations__': {'a': int}});"
        "print(early.get_annotations(C), early.get_annotations(int), 'dis' in sys.modules);"
        "f = lambda: 0; f.__annotations__ = {'return': 'int'};"
        "print(early.get_annotations(f, eval_str=True), 'dis' in sys.modules)"
    )
    assert run(code).splitlines() == ["{'a': <class 'int'>} {} False", "{'return': <class 'int'>} True"]


def test_without_it_the_price_is_paid() -> None:
    """Else there would be nothing to spare, and this module could go."""
    assert run("import sys, dataclasses; print('dis' in sys.modules)") == "True"


def test_who_uses_it_gets_the_real_one() -> None:
    code = (
        "import sys; from claimd.spare import spare; spare('inspect'); import inspect as early;"
        "f = lambda a, b: 0; print(early.signature(f)); import inspect; print(inspect.signature(f));"
        "print(inspect is early, early.Parameter is inspect.Parameter)"
    )
    assert run(code).splitlines() == ["(a, b)", "(a, b)", "False True"]


def test_a_module_in_a_package() -> None:
    code = (
        "import sys; from claimd.spare import spare; spare('ctypes.util'); import ctypes.util;"
        "print('subprocess' in sys.modules); print(callable(ctypes.util.find_library));"
        "from ctypes.util import find_library; print('subprocess' in sys.modules)"
    )
    assert run(code).splitlines() == ["False", "True", "True"]


def test_one_that_is_there_already_stays() -> None:
    code = (
        "import inspect, sys; from claimd.spare import spare; spare('inspect');"
        "print(sys.modules['inspect'] is inspect)"
    )
    assert run(code) == "True"


def test_what_is_not_in_it_is_not_there() -> None:
    code = (
        "from claimd.spare import spare; spare('inspect'); import inspect;"
        "print(hasattr(inspect, 'nonsense'), hasattr(inspect, '__path__'))"
    )
    assert run(code) == "False False"
