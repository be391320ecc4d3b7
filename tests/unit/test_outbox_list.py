"""What `outbox list` says of a search that did not show everything."""

from __future__ import annotations

import pytest

from service.console.commands.events import say
from service.console.operations.search import Found, Listing

NIGHT_MS = 1_795_559_419_447
PAUSED = Listing(Found([], 42, NIGHT_MS), 0, is_bounded=True)


@pytest.mark.parametrize(
    ("json", "out", "none"), [(False, "", "No rows match.\n"), (True, "[]\n", "")]
)
def test_a_search_says_how_far_it_went_and_to_people_that_nothing_matches(
    capsys: pytest.CaptureFixture[str], out: str, none: str, *, json: bool
) -> None:
    say(PAUSED, json=json)
    told = "Searched back to rows of 2026-11-24 22:30:19 UTC; --cursor 42 continues.\n"
    assert capsys.readouterr() == (out, told)
    say(Listing(Found([]), 0, is_bounded=False), json=json)
    assert capsys.readouterr() == (out, none)
