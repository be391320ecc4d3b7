"""When claims search for express rows."""

from __future__ import annotations

import pytest

from service.outbox.postgres.express import ExpressRows


@pytest.mark.parametrize("found", [False, True])
def test_a_look_says_whether_express_rows_wait(*, found: bool) -> None:
    rows = ExpressRows()
    assert rows.may_wait
    rows.look_ended(rows.look_begins(), found=found)
    assert rows.may_wait is found
    rows.stored()
    assert rows.may_wait


def test_a_look_may_have_missed_rows_that_were_stored_meanwhile() -> None:
    rows = ExpressRows()
    begun = rows.look_begins()
    rows.stored()
    rows.look_ended(begun, found=False)
    assert rows.may_wait


def test_what_an_earlier_look_found_may_wait() -> None:
    rows = ExpressRows()
    earlier = rows.look_begins()
    rows.stored()
    rows.look_ended(rows.look_begins(), found=False)
    assert not rows.may_wait
    rows.look_ended(earlier, found=True)
    assert rows.may_wait


def test_every_second_turn_is_theirs() -> None:
    rows = ExpressRows()
    first, second, third = (rows.is_their_turn() for _ in range(3))
    assert first is third is not second
