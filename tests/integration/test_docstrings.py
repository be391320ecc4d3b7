"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import service


def test_the_examples_of_docstrings_are_true() -> None:
    runner, said = doctest.DocTestRunner(), list[str]()
    for found in pkgutil.walk_packages(service.__path__, "service."):
        if found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        for example in doctest.DocTestFinder(exclude_empty=True).find(module):
            runner.run(example, out=said.append)
    assert runner.failures == 0, "".join(said)
    assert runner.tries
