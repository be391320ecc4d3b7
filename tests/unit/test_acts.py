"""What the audit says of a command: its words, its ids, its pages in one record."""

from __future__ import annotations

import json

import pytest

from inngest_outbox.outbox.audit import (
    Act,
    AuditRecord,
    AuditRow,
    act_of,
    chosen_by,
    erased_words,
    id_start,
    ids_text,
    new_act,
    records,
)
from inngest_outbox.outbox.model import Filter, State


def test_each_act_has_an_id_of_its_own_and_says_what_was_chosen() -> None:
    first, second = act_of(Filter(owner="ada")), new_act("all")
    assert first == Act(first.id, "owner=ada, limit=100")
    assert second.chosen == "all"
    assert len({first.id, second.id}) == 2
    assert {len(first.id), len(second.id)} == {32}


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Filter(), "limit=100"),
        (Filter(state=State.DEAD, limit=5), "state=dead, limit=5"),
        (Filter(ids=("e-1",)), "1 given id"),
        (Filter(ids=("e-1", "e-2"), limit=7), "2 given ids"),
        (Filter(ids=tuple(map(str, range(1234)))), "1,234 given ids"),
        (
            Filter(since_ms=1_795_559_419_447, until_ms=1_795_559_420_000, never_sent=True),
            "since=2026-11-24T22:30:19Z, until=2026-11-24T22:30:20Z, never_sent=True, limit=100",
        ),
        (
            Filter(user_part="ada", reason_part="5", payload_part="what no audit keeps"),
            "user contains ada, reason contains 5, a text in the payload, limit=100",
        ),
    ],
)
def test_a_filter_is_told_in_words(wanted: Filter, words: str) -> None:
    assert chosen_by(wanted) == words


@pytest.mark.parametrize("owner", ["dev u-1", "u-1"])
def test_words_that_name_an_erased_owner_are_erased_whole(owner: str) -> None:
    for words in ("owner=dev u-1, limit=5", "user_id=u-1", "u-1", "(u-1)", "of u-1.", "u-11 u-1"):
        assert erased_words(words, owner) == "erased", words
    for words in ("", "u-11", "u-1-b", "u-1@b", "x-u-1", "x.u-1", "a@u-1", "xu-1", "U-1"):
        assert erased_words(words, owner) == words


def test_ids_are_stored_as_json_in_which_one_is_found_by_its_beginning() -> None:
    assert json.loads(ids_text(["a", "b"])) == ["a", "b"]
    assert id_start("a1") in ids_text(["a123", "b"])
    assert id_start("123") not in ids_text(["a123", "b"])
    assert id_start('a"') == '"a\\"'


def test_the_pages_of_a_command_are_one_record() -> None:
    rows: list[AuditRow] = [
        ("act-1", 10, "ada", "replay", "limit=2", '["a","b"]'),
        ("act-1", 20, "ada", "replay", "limit=2", '["c"]'),
        ("act-2", 30, "bob", "pause", "why", "[]"),
    ]
    assert records(rows) == [
        AuditRecord("act-1", 10, "ada", "replay", "limit=2", ("a", "b", "c")),
        AuditRecord("act-2", 30, "bob", "pause", "why", ()),
    ]
    assert records([]) == []
