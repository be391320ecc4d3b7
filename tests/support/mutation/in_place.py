"""Trials in place: tests are collected once, and each mutant is planted in a fork that runs some.

A function gets the mutant's code, and a constant of the module the mutant's value. A fork costs a
few hundredths of a second, where importing everything again costs more than a second.
"""

from __future__ import annotations

import gc
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

from tests.support.mutation.judged_run import QUIET, fork, settle_examples, wait_for

Codes = dict[int, int]  # how the trial of each mutant ended
_VALUES = (str, bytes, int, float, tuple, frozenset)


class Collected:
    """The tests that pytest has collected, and the module as they imported it."""

    def __init__(self, session: pytest.Session, module: str) -> None:
        self._session = session
        self._items = {item.nodeid: item for item in session.items}
        self._module = sys.modules[module]
        self._functions = _functions_of(self._module)
        self._parameters = _parameters_of(session.items)

    def plant(self, code: CodeType, *, imported: bool) -> bool:
        """Put the mutant in place; whether that is possible.

        `imported` says that the change is in a line that an import runs.
        """
        if imported:
            return self._plant_values(code)
        return all(self._give(function) for function in _functions_in(code))

    def run(self, tests: Sequence[str]) -> int:
        """Whether one of the tests fails: 1 if it does."""
        items = [self._items[test] for test in tests]
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self._session.testsfailed:
                return 1
        return 0

    def _give(self, code: CodeType) -> bool:
        for function in self._functions.get(_place(code), ()):
            if function.__code__ != code:
                try:
                    function.__code__ = code
                except ValueError:  # a closure over other names
                    return False
        return True

    def _plant_values(self, code: CodeType) -> bool:
        old = vars(self._module)
        new = {name: old[name] for name in ("__name__", "__file__", "__package__", "__spec__")}
        exec(code, new)
        changed = [
            name
            for name, value in new.items()
            if isinstance(value, _VALUES) and name in old and value != old[name]
        ]
        if any(id(old[name]) in self._parameters for name in changed):
            return False  # a test was collected with the value
        for name in changed:
            was = old[name]
            for module in list(sys.modules.values()):
                if getattr(module, name, None) is was:
                    setattr(module, name, new[name])
        return bool(changed)


def tried_in_place(
    arguments: Sequence[str], module: str, folder: Path, work: Callable[[Collected, Path], Codes]
) -> Codes:
    """Call `work` in a fork, with the tests that these arguments collect; what it returns.

    It also gets the file for what its own forks print. Empty where the fork fails.
    """
    answer, output = folder / "in-place", folder / "collected"

    def answering(collected: Collected) -> None:
        answer.write_text(json.dumps(work(collected, output)))

    def collect() -> None:
        settle_examples()
        pytest.main([*QUIET, *arguments], plugins=[_Instead(module, answering)])

    wait_for(fork(collect, output, None))
    found = json.loads(answer.read_text()) if answer.exists() else {}
    return {int(at): code for at, code in found.items()}


class _Instead:
    """A plugin that calls `work` instead of running the tests."""

    def __init__(self, module: str, work: Callable[[Collected], None]) -> None:
        self._module = module
        self._work = work

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._work(Collected(session, self._module))
        return True


def _parameters_of(items: Sequence[pytest.Item]) -> set[int]:
    """The ids of what the tests' parameters hold."""
    found: set[int] = set()
    left: list[Any] = [item.callspec.params for item in items if hasattr(item, "callspec")]
    while left:
        value = left.pop()
        if id(value) not in found:
            found.add(id(value))
            if isinstance(value, dict):
                left.extend(value.values())
            elif isinstance(value, list | tuple | set | frozenset):
                left.extend(value)
    return found


_Place = tuple[str, int]


def _place(code: CodeType) -> _Place:
    return code.co_name, code.co_firstlineno


def _functions_of(module: ModuleType) -> dict[_Place, list[FunctionType]]:
    """The module's functions by the place of their code."""
    found = defaultdict(list)
    gc.unfreeze()  # what is frozen is not listed
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and one.__globals__ is vars(module):
            found[_place(one.__code__)].append(one)
    return found


def _functions_in(code: CodeType) -> Iterator[CodeType]:
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from _functions_in(one)
