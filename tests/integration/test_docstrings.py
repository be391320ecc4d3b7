"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import service

MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(service.__path__, "service.")
    if not found.name.endswith("__main__")
]
EXAMPLES = [
    found
    for module in MODULES
    for found in doctest.DocTestFinder(exclude_empty=True).find(module)
    if found.examples
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_examples_of_a_docstring_are_true(example: doctest.DocTest) -> None:
    said: list[str] = []
    result = doctest.DocTestRunner().run(example, out=said.append, clear_globs=False)
    assert result.failed == 0, "".join(said)


def test_docstrings_have_examples() -> None:
    assert EXAMPLES
