"""The list of rows: the options that choose them, what a search says, narrow and wide screens."""

from __future__ import annotations

import msgspec
import pytest
from rich.console import Console

from inngest_outbox.console.commands.events import say
from inngest_outbox.console.operations.search import Found, Listing
from inngest_outbox.console.operations.views import RowView, row_view
from inngest_outbox.console.terminal.options import RowOptions, parse_moment
from inngest_outbox.console.terminal.tables import row_list, row_table
from inngest_outbox.outbox.model import Filter, Note, State
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
    assert shown[0].rstrip() == f"{'ID':36}  STATE       AGE       USER, NAME; REASON"
    assert shown[1].startswith(f"{EVENT_ID}  dead        1.5 min   ada@example.com")
    reason = " ".join(" ".join(shown[2:]).split())
    assert reason == f"documents/aws.index; rejected: {WORDS}"


@pytest.mark.parametrize(("width", "second"), [(139, "STATE AGE"), (140, "STATE ATTEMPTS")])
def test_the_attempts_are_shown_from_140_columns_on(width: int, second: str) -> None:
    assert lines(width, VIEW)[0].split()[1:3] == second.split()


def test_rows_keep_their_order_on_a_wide_screen() -> None:
    other = msgspec.structs.replace(VIEW, id="e-1")
    assert [line.split()[0] for line in lines(300, other, VIEW)] == ["ID", "e-1", EVENT_ID]


def test_a_row_without_a_reason_takes_two_lines_and_one_of_the_future_has_no_age() -> None:
    calm = msgspec.structs.replace(VIEW, id="e-1", state=State.PENDING, reason=None, detail=None)
    bare = msgspec.structs.replace(calm, payload_bytes=0)
    assert [line.rstrip() for line in lines(80, calm, bare, VIEW)[1:6]] == [
        f"{'e-1':36}  pending     1.5 min   ada@example.com",
        "  documents/aws.index",
        f"{'e-1':36}  pending     1.5 min   ada@example.com",
        "  documents/aws.index; payload removed",
        f"{EVENT_ID}  dead        1.5 min   ada@example.com",
    ]
    assert "dead        0 s " in lines(80, msgspec.structs.replace(VIEW, accepted_at=99_000))[1]


def test_a_wide_screen_has_one_line_for_each_row() -> None:
    shown = lines(500, VIEW, VIEW)
    assert shown[0].split() == ["ID", "STATE", "ATTEMPTS", "AGE", "USER", "NAME", "REASON"]
    cells = f"{EVENT_ID} dead 3 1.5 min ada@example.com documents/aws.index rejected: {WORDS}"
    assert [" ".join(line.split()) for line in shown[1:]] == [cells, cells]


def test_no_long_word_of_others_breaks_an_id_or_a_line() -> None:
    crowded = msgspec.structs.replace(VIEW, user_id="u" * 99, name="n" * 99)
    assert lines(140, crowded)[1].split()[:2] == [EVENT_ID, "dead"]
    for width, at in ((40, 0), (40, 1), (80, 1)):
        assert lines(width, crowded)[at].endswith("…")


@pytest.mark.parametrize("width", [40, 80, 500])
def test_words_of_others_stay_on_their_line(width: int) -> None:
    evil = "\x1b[2J\u202egnp\r\n[bold]x"
    view = msgspec.structs.replace(VIEW, user_id=evil, name=evil, reason="rejected", detail=evil)
    text = "\n".join(lines(width, view))
    assert text.replace("\n", "").isprintable()
    assert "[bold]x" in text


def facts(view: RowView) -> list[str]:
    console = Console(width=500)
    with console.capture() as capture:
        console.print(row_table(view, "Inngest refused it."))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_each_fact_of_a_row_stands_under_its_own_name() -> None:
    hour = 3_600_000
    view = msgspec.structs.replace(
        VIEW,
        inngest_id="01M8ACPNM0AXN1N",
        wire_id="order-1",
        environment="branch-7",
        sends=5,
        accepted_at=hour,
        first_sent_at=2 * hour,
        dead_at=3 * hour,
        payload_bytes=1_200,
        history=(Note(4 * hour, "answered 500\x1b[/b]"), Note(5 * hour, "alone")),
    )
    whole = facts(view)
    for fact, label in (
        ("inngest_id", "id in Inngest "),
        ("wire_id", "sender's id "),
        ("environment", "environment "),
        ("first_sent_at", "first sent "),
        ("dead_at", "dead "),
        ("reason", "reason "),
    ):
        without = facts(msgspec.structs.replace(view, **{fact: None}))
        assert without == [line for line in whole if not line.startswith(label)], fact
    assert whole == [
        f"id {EVENT_ID}",
        "id in Inngest 01M8ACPNM0AXN1N",
        "sender's id order-1",
        "environment branch-7",
        "state dead",
        "why Inngest refused it.",
        "name documents/aws.index",
        "user ada@example.com",
        "attempts 3 (an outage adds none)",
        "sends 5",
        "accepted 1970-01-01 01:00:00 UTC",
        "first sent 1970-01-01 02:00:00 UTC",
        "dead 1970-01-01 03:00:00 UTC",
        f"reason rejected: {WORDS}",
        "payload 1,200 bytes",
        "history 1970-01-01 04:00:00 UTC answered 500\ufffd[/b]",
        "history 1970-01-01 05:00:00 UTC alone",
    ]


# An empty text, as of a variable that is not set, matches nothing: it is no option less.
GIVEN = {
    "user": ("", "user_id"),
    "name": ("", "name"),
    "reason": ("", "reason"),
    "since": (0, "since_ms"),
    "until": (0, "until_ms"),
}


@pytest.mark.parametrize("option", GIVEN)
def test_each_option_is_a_part_of_the_filter(option: str) -> None:
    value, part = GIVEN[option]
    options = RowOptions(**{option: value})  # type: ignore[arg-type]
    assert options.are_given
    assert options.filter(limit=7) == Filter(**{part: value}, limit=7)  # type: ignore[arg-type]
    options = RowOptions(**{option: value or "A b "})  # type: ignore[arg-type]
    assert options.filter(limit=7) == Filter(**{part: value or "A b "}, limit=7)  # type: ignore[arg-type]


def test_what_is_not_given_matches_all_and_a_state_and_ids_come_from_the_command() -> None:
    assert not RowOptions().are_given
    assert RowOptions().filter(limit=7) == Filter(limit=7)
    chosen = RowOptions().filter(limit=7, state=State.DEAD, ids=("e-1",))
    assert chosen == Filter(limit=7, state=State.DEAD, ids=("e-1",))
    options = RowOptions(**{option: value for option, (value, _) in GIVEN.items()})  # type: ignore[arg-type]
    parts = {part: value for value, part in GIVEN.values()}
    assert options.filter(limit=7) == Filter(**parts, limit=7)  # type: ignore[arg-type]


def test_a_moment_is_exact_to_the_millisecond() -> None:
    assert parse_moment("1.001s", 10_000) == 8_999
    assert parse_moment("1970-01-01T00:00:01.001", 0) == 1_001


NIGHT_MS = 1_795_559_419_447


@pytest.mark.parametrize(
    ("json", "out", "none"), [(False, "", "No rows match.\n"), (True, "[]\n", "")]
)
def test_a_search_says_how_far_it_went_and_to_people_that_nothing_matches(
    capsys: pytest.CaptureFixture[str], out: str, none: str, *, json: bool
) -> None:
    told = "Searched back to rows of 2026-11-24 22:30:19 UTC; --cursor 42 continues.\n"
    for rows in ([], [made_row()]):
        say(Listing(Found(rows, 42, NIGHT_MS), len(rows), is_bounded=True), json=json)
        shown = capsys.readouterr()
        assert (shown.out == out, shown.err) == (not rows, told)
    say(Listing(Found([]), 0, is_bounded=False), json=json)
    assert capsys.readouterr() == (out, none)
