"""The picture of `outbox watch` on a small terminal."""

from __future__ import annotations

import msgspec
from rich.console import Console

from service.console.commands.picture import picture
from service.console.operations.rates import moved
from service.console.operations.views import stats_view
from service.outbox.model import DeliveryRecord
from service.outbox.stats import Stats
from tests.support.words import EVIL

STATS = Stats(
    pending=1_234_567,
    delivering=2000,
    sent=500,
    delivered=9_876_543,
    dead=12,
    oldest_pending_seconds=7200.0,
    oldest_due_seconds=7200.0,
    delivery=None,
    database_bytes=1,
    wal_bytes=1,
)


def lines(reason: str = "HTTP 503 from Inngest", fault: str = "") -> list[str]:
    record = DeliveryRecord("backing_off", reason, 1, 4, 3.0, 0, destination="dev server")
    view = stats_view(msgspec.structs.replace(STATS, delivery=record), serving=True)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(picture("sqlite:///data/outbox.db", moved(None, view, 1.0), fault))
    return capture.get().splitlines()


def test_it_fits_80_columns_and_24_lines() -> None:
    shown = lines()
    assert max(len(line.rstrip()) for line in shown) <= 80
    assert len(shown) < 24
    text = "\n".join(shown)
    for words in (
        "sqlite:///data/outbox.db",
        "1,234,567",
        "backing_off (HTTP 503 from Inngest)",
        "Inngest (dev server)",
        "1,237,067 waiting, not draining",
    ):
        assert words in text


def test_figures_that_are_not_current_are_said_to_be_so() -> None:
    assert any("not current: The disk is gone" in line for line in lines(fault="The disk is gone."))
    assert not any("not current" in line for line in lines())


def test_words_of_others_are_made_safe() -> None:
    assert all(line.isprintable() for line in lines(reason=EVIL, fault=EVIL))
