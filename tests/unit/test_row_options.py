"""The options that choose rows: each becomes the part of the filter that it names."""

from __future__ import annotations

import pytest

from service.console.terminal.options import RowOptions, parse_moment
from service.outbox.model import Filter, State

GIVEN = {
    "user": ("u-1", "user_id"),
    "name": ("a/b", "name"),
    "reason": ("rejected", "reason"),
    "older_than": (60.0, "older_than_seconds"),
    "since": (1, "since_ms"),
    "until": (2, "until_ms"),
}


@pytest.mark.parametrize("option", GIVEN)
def test_each_option_is_a_part_of_the_filter(option: str) -> None:
    value, part = GIVEN[option]
    options = RowOptions(**{option: value})  # type: ignore[arg-type]
    assert options.are_given
    assert options.filter(limit=7) == Filter(**{part: value}, limit=7)  # type: ignore[arg-type]


def test_what_is_not_given_matches_all_and_a_state_and_ids_come_from_the_command() -> None:
    assert not RowOptions().are_given
    assert RowOptions().filter(limit=7) == Filter(limit=7)
    chosen = RowOptions().filter(limit=7, state=State.DEAD, ids=("e-1",))
    assert chosen == Filter(limit=7, state=State.DEAD, ids=("e-1",))


def test_a_moment_ago_is_exact_to_the_millisecond() -> None:
    assert parse_moment("1500ms", 10_000) == 8_500
