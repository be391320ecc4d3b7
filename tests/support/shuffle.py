"""A plugin of pytest: the tests in an order that a seed names.

Files change places with files, and tests with tests of their file:
`pytest -p tests.support.shuffle --shuffle SEED`. The same seed gives the same order.
"""

from __future__ import annotations

import random

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, required=True, metavar="SEED")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    terminalreporter.write_line(f"The order is that of seed {config.getoption('--shuffle')}.")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.location[0], []).append(item)
    dice = random.Random(config.getoption("--shuffle"))
    groups = list(files.values())
    for group in (groups, *groups):
        dice.shuffle(group)
    items[:] = [item for group in groups for item in group]
