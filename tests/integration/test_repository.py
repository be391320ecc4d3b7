"""The repository: its lists, and the examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections import Counter
from pathlib import Path

import inngest_outbox

TESTS = Path(__file__).parents[1]


def test_every_test_file_has_a_name_of_its_own() -> None:
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, times in names.items() if times > 1] == []


def test_the_examples_of_docstrings_are_true() -> None:
    runner, said = doctest.DocTestRunner(), list[str]()
    for found in pkgutil.walk_packages(inngest_outbox.__path__, "inngest_outbox."):
        if found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        for example in doctest.DocTestFinder(exclude_empty=True).find(module):
            runner.run(example, out=said.append)
    assert runner.failures == 0, "".join(said)
    assert runner.tries
