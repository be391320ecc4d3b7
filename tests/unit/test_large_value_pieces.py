"""A large value is looked at once, piece by piece, and up to its first fault."""

from __future__ import annotations

import pytest

from service.outbox.nesting import MAX_DEPTH, is_too_deep
from service.web.intake import large_value
from service.web.intake.large_value import (
    LARGE_BYTES,
    OUT_OF_RANGE,
    TOO_DEEP,
    faults,
    has_many_digits,
)


def test_there_is_a_moment_for_others_after_each_piece_without_a_fault() -> None:
    assert list(faults(b"[1,2,3]", 3)) == [None, None, None]
    assert list(faults(b"[10,1e400,1e400]", 4)) == [None, None, OUT_OF_RANGE]
    assert list(faults(b"[" * 501 + b"]" * 501, 501)) == [TOO_DEEP]
    assert list(faults(b"[%b]" % (b" " * LARGE_BYTES))) == [None, None]


class Looked:
    """The sizes of what was counted for levels, and of what was searched for numbers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.levels: list[int] = []
        self.numbers: list[int] = []
        levels, numbers = large_value._levels, large_value._is_out_of_range

        def counting(piece: bytes, level: int) -> tuple[int, int]:
            self.levels.append(len(piece))
            return levels(piece, level)

        def searching(text: bytes) -> bool:
            self.numbers.append(len(text))
            return numbers(text)

        monkeypatch.setattr(large_value, "_levels", counting)
        monkeypatch.setattr(large_value, "_is_out_of_range", searching)


def test_each_byte_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = Looked(monkeypatch)
    value = b"[" + b"1e5," * 1000 + b"1e5]"
    assert list(faults(value, 100)) == [None] * 41
    assert (max(looked.levels), sum(looked.levels)) == (100, len(value))
    assert sum(looked.numbers) == len(value)


@pytest.mark.parametrize("numbers", [b"10,1e400", b"1e400,10", b"-1E400", b"9" * 309, b"1" * 310])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_one_number_out_of_range_is_enough(numbers: bytes, size: int) -> None:
    assert [words for words in faults(b"[%b]" % numbers, size) if words] == [OUT_OF_RANGE]


@pytest.mark.parametrize(("digits", "is_many"), [(308, False), (309, True), (310, True)])
def test_a_float_has_at_most_309_digits(digits: int, is_many: bool) -> None:  # noqa: FBT001
    assert has_many_digits(b"[%b]" % (b"0123456789" * 31)[:digits]) is is_many
    assert not has_many_digits(b"123 " * digits)


@pytest.mark.parametrize(("levels", "is_deep"), [(MAX_DEPTH - 2, False), (MAX_DEPTH - 1, True)])
def test_the_level_goes_on_after_a_piece_of_many_brackets(levels: int, is_deep: bool) -> None:  # noqa: FBT001
    shallow = b"[[" + b"[],{}," * 300
    value = shallow + b"[" * levels + b"]" * levels + b"]]"
    for size in (len(shallow), 10, 10_000):
        assert bool([words for words in faults(value, size) if words]) is is_deep


@pytest.mark.parametrize("levels", [1, 2, MAX_DEPTH, MAX_DEPTH + 1])
def test_a_value_of_many_brackets_may_be_flat(levels: int) -> None:
    deep: object = []
    for at in range(levels - 2):
        deep = [1, deep] if at % 2 else {"a": deep, "b": "c"}
    decoded = [deep, *[[1], {"a": 1}] * 300] if levels > 1 else []
    encoded = b"[" * (MAX_DEPTH + 1)
    assert is_too_deep(encoded, decoded) is (levels > MAX_DEPTH)


def test_a_value_of_few_brackets_is_not_looked_through() -> None:
    assert is_too_deep(b"[" * (MAX_DEPTH - 1) + b"{", None) is False
