"""What `outbox list` says of a search that did not show everything."""

from __future__ import annotations

import pytest

from service.console.commands.events import say
from service.console.operations.search import Found, Listing

NIGHT_MS = 1_795_559_419_447
PAUSED = Listing(Found([], 42, NIGHT_MS), 0, is_bounded=True)


@pytest.mark.parametrize("json", [False, True])
def test_a_search_that_paused_says_how_far_it_went_and_how_it_goes_on(
    capsys: pytest.CaptureFixture[str], *, json: bool
) -> None:
    say(PAUSED, json=json)
    said = capsys.readouterr()
    assert said.err == "Searched back to rows of 2026-11-24 22:30:19 UTC; --cursor 42 continues.\n"
    assert said.out == ("[]\n" if json else "")


@pytest.mark.parametrize(("json", "words"), [(False, "No rows match.\n"), (True, "")])
def test_nothing_that_matches_is_said_to_people(
    capsys: pytest.CaptureFixture[str], *, json: bool, words: str
) -> None:
    say(Listing(Found([]), 0, is_bounded=False), json=json)
    assert capsys.readouterr().err == words
