"""The encryption keys that waiting events need, in words."""

from __future__ import annotations

import pytest

from service.console.operations.key_needs import KeyNeeds


@pytest.mark.parametrize(
    ("events", "is_bounded", "words"),
    [
        ((1_200, 0), False, "1,200 waiting events need key 1; no waiting event needs key 2"),
        (
            (0, 1),
            True,
            "1 waiting event needs key 2; more wait than were looked at: keep every key",
        ),
        ((), False, ""),
    ],
)
def test_a_key_is_called_needless_only_where_all_events_were_looked_at(
    events: tuple[int, ...], *, is_bounded: bool, words: str
) -> None:
    assert KeyNeeds(events, 0, is_bounded).words == words


@pytest.mark.parametrize(
    ("missing", "fault"),
    [
        (0, None),
        (
            1,
            (
                "1 waiting event needs another key than OUTBOX_ENCRYPTION_KEY has: "
                "add it after the others"
            ),
        ),
        (
            1_200,
            (
                "1,200 waiting events need another key than OUTBOX_ENCRYPTION_KEY has: "
                "add it after the others"
            ),
        ),
    ],
)
def test_a_key_that_is_missing_is_a_fault(missing: int, fault: str | None) -> None:
    assert KeyNeeds((1,), missing, is_bounded=False).fault == fault
