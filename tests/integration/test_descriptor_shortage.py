"""A shortage of file descriptors is counted each time, and logged at its begin and its end."""

from __future__ import annotations

import asyncio
import errno

import pytest
from structlog.testing import capture_logs

from inngest_outbox.observe import file_descriptors
from inngest_outbox.observe.file_descriptors import DescriptorShortage
from tests.support.figures import Figures
from tests.support.virtual_time import in_virtual_time, now


def counted(purpose: str, times: int) -> list[object]:
    return [("count", "no_file_descriptors", 1, ("purpose", purpose))] * times


@in_virtual_time
async def test_connections_that_wait_for_a_descriptor_are_counted_twice_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = Figures()
    monkeypatch.setattr(file_descriptors, "is_out_of_descriptors", lambda: now() < 3)
    watching = asyncio.create_task(DescriptorShortage(recorder).watch())
    await asyncio.sleep(10)
    watching.cancel()
    assert recorder.got == counted("accept", 6)


@in_virtual_time
async def test_a_shortage_is_counted_each_time_and_logged_at_its_begin_and_its_end() -> None:
    recorder = Figures()
    shortage = DescriptorShortage(recorder)
    with capture_logs() as logs:
        for number in (errno.EMFILE, errno.ENFILE, errno.ECONNREFUSED):
            shortage.send_failed(OSError(number, "no"))
        watching = asyncio.create_task(shortage.watch())
        await asyncio.sleep(2)
        watching.cancel()
    assert recorder.got == counted("send", 2)
    assert logs == [
        {"event": "no_file_descriptors", "log_level": "error", "purpose": "send"},
        {"event": "file_descriptors_are_back", "log_level": "warning"},
    ]
