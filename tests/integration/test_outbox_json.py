"""Each command of the `outbox` script that prints, with --json."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from service.bootstrap.stores import Outbox, open_served_outbox
from service.config.settings import Settings
from service.observe.recorder import NullRecorder
from tests.support.outbox_command import one_of_each, outbox_json


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """The service's log, which would share the standard output of this process."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
async def ids(tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """The ids of rows in each state of an outbox that is served."""
    settings = Settings.load({"OUTBOX_URL": f"sqlite:///{tmp_path / 'outbox.db'}"})
    outbox: Outbox
    async with open_served_outbox(settings, NullRecorder()) as outbox:
        yield await one_of_each(outbox)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (["stats"], dict),
        (["stats", "--owners"], dict),
        (["list"], list),
        (["show", "{dead}"], dict),
        (["audit"], list),
        (["replay", "{dead}"], dict),
        (["replay", "--all", "--yes"], dict),
        (["discard", "{dead}"], dict),
        (["discard", "--all", "--yes"], dict),
        (["purge"], dict),
        (["purge", "--yes"], dict),
        (["pause"], dict),
        (["resume"], dict),
        (["resume", "--now"], dict),
        (["sign-out", "u-1"], dict),
        (["backup", "{folder}/copy.db"], dict),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_with_json_a_command_prints_json_only(
    tmp_path: Path, ids: dict[str, str], command: list[str], kind: type[Any]
) -> None:
    words = [word.format(folder=tmp_path, **ids) for word in command]
    assert isinstance(await outbox_json(tmp_path / "outbox.db", *words), kind)
