"""The list of rows on narrow and wide screens."""

from __future__ import annotations

import msgspec
import pytest
from rich.console import Console

from service.console.operations.views import RowView, row_view
from service.console.terminal.tables import row_list
from service.outbox.model import State
from tests.support.made_row import made_row

EVENT_ID = "019e1a2b-3c4d-7abc-8def-0123456789ab"
WORDS = "HTTP 400: data.documentName is required and must be a string of at most 1,024 bytes"
VIEW = row_view(
    made_row(
        State.DEAD,
        id=EVENT_ID,
        user_id="ada@example.com",
        attempts=3,
        accepted_at_ms=0,
        settled_at_ms=1,
        reason="rejected",
        detail=WORDS,
    )
)


def lines(width: int, *views: RowView) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(row_list(views, 90_000, width))
    return capture.get().splitlines()


def test_at_80_columns_the_whole_reason_is_read_and_the_id_is_whole() -> None:
    shown = lines(80, VIEW)
    assert all(len(line) <= 80 for line in shown)
    assert shown[1].startswith(f"{EVENT_ID}  dead        1.5 min   ada@example.com")
    reason = " ".join(" ".join(shown[2:]).split())
    assert reason == f"documents/aws.index; rejected: {WORDS}"


def test_a_row_without_a_reason_takes_two_lines() -> None:
    calm = msgspec.structs.replace(VIEW, state=State.PENDING, reason=None, detail=None)
    assert [line.strip() for line in lines(80, calm)[2:]] == ["documents/aws.index"]


def test_a_wide_screen_has_one_line_for_each_row() -> None:
    shown = lines(500, VIEW, VIEW)
    assert shown[0].split() == ["ID", "STATE", "ATTEMPTS", "AGE", "USER", "NAME", "REASON"]
    assert len(shown) == 3


@pytest.mark.parametrize("width", [40, 80, 500])
def test_words_of_others_stay_on_their_line(width: int) -> None:
    evil = "\x1b[2J\u202egnp\r\n[bold]x"
    view = msgspec.structs.replace(VIEW, user_id=evil, name=evil, reason="rejected", detail=evil)
    text = "\n".join(lines(width, view))
    assert text.replace("\n", "").isprintable()
    assert "[bold]x" in text
