"""How an array of events is taken apart: at once where that is safe, else element by element."""

from __future__ import annotations

import pytest

from service.web.intake import lenient_json
from service.web.intake.lenient_json import MAX_EVENTS, NO_EVENTS, BadEventError, elements

LARGE = 4 * 1024 * 1024
GLANCE = 1024 * 1024


class Walked:
    """Which texts were walked through, and how many bodies were split at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[int] = []
        self.split = 0
        walk, split = lenient_json._walk, lenient_json._split_array

        def walking(text: str):
            self.texts.append(len(text))
            return walk(text)

        def splitting(body: bytes):
            self.split += 1
            return split(body)

        monkeypatch.setattr(lenient_json, "_walk", walking)
        monkeypatch.setattr(lenient_json, "_split_array", splitting)


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> Walked:
    return Walked(monkeypatch)


def array(*parts: bytes, size: int = 0) -> bytes:
    """An array of these elements, and one more that fills it to this size."""
    inside = b",".join(parts)
    filler = b',"%b"' % (b"x" * (size - len(inside) - 5)) if size else b""
    return b"[%b%b]" % (inside, filler)


def test_a_small_array_is_split_at_once_however_many_elements_it_has(walked: Walked) -> None:
    assert list(elements(array(b"1", b'{"a": 1}', b"[]"))) == [b"1", b'{"a": 1}', b"[]"]
    crowd = array(*[b"1"] * (MAX_EVENTS + 1), size=LARGE)
    assert len(crowd) == LARGE
    assert len(list(elements(crowd))) == MAX_EVENTS + 2
    assert (walked.texts, walked.split) == ([], 2)


def test_a_large_array_of_few_events_is_split_at_once_after_a_glance(walked: Walked) -> None:
    many = b"[%b]" % b",".join([b"1"] * MAX_EVENTS)
    bodies = [
        array(b"1", size=LARGE + 1),  # hardly a comma
        array(many, size=LARGE + 1),  # many commas in one element
        array(*[b"1"] * (MAX_EVENTS - 1), size=LARGE + 1),  # as many elements as it may have
        array(b'"%b"' % (b"x" * GLANCE), *[b"1"] * MAX_EVENTS, size=LARGE + 1),  # a late crowd
    ]
    counts = [len(list(elements(body))) for body in bodies]
    assert counts == [2, 2, MAX_EVENTS, MAX_EVENTS + 2]
    assert walked.split == 4
    assert set(walked.texts) <= {GLANCE}


@pytest.mark.parametrize("first", [b"1", b'"\xff"'])
def test_a_crowd_is_never_split(walked: Walked, first: bytes) -> None:
    crowd = array(first, *[b"1"] * MAX_EVENTS, size=LARGE + 1)
    found = list(elements(crowd))
    assert found[:2] == [first.replace(b"\xff", "\ufffd".encode()), b"1"]
    assert len(found) == MAX_EVENTS + 2
    assert (walked.texts, walked.split) == ([GLANCE, LARGE + 1], 0)


def test_a_glance_may_end_inside_of_a_letter(walked: Walked) -> None:
    crowd = b"[ " + b"1," * MAX_EVENTS + '"\u00e9"'.encode() * (LARGE // 4)
    assert crowd[GLANCE - 1 :].startswith("\u00e9".encode())
    assert len(ends(crowd)[0]) == MAX_EVENTS + 1
    assert walked.split == 0


def ends(body: bytes) -> tuple[list[bytes], str | None]:
    """The elements before the fault, and its words."""
    found = []
    try:
        for one in elements(body):
            found.append(one)  # noqa: PERF402  (an error must not drop them)
    except BadEventError as error:
        return found, str(error)
    return found, None


@pytest.mark.parametrize(
    ("body", "found", "is_bad"),
    [
        (b"", [], False),
        (b" \t\r\n", [], False),
        (b"[]", [], False),
        (b" [ ] ", [], False),
        (b'\n{"a":1} ', [b'{"a":1} '], False),
        (b"[1,2", [b"1", b"2"], False),
        (b"[1,2}", [b"1", b"2"], False),
        (b"[1 , 2 ] x", [b"1", b"2"], False),
        (b"[1,]", [b"1"], True),
        (b"[1,", [b"1"], True),
        (b"[1 2]", [b"1"], True),
        (b"[1,,2]", [b"1"], True),
        (b"[,1]", [], True),
        (b"[tru", [], True),
        (b"[1,NaN]", [b"1"], True),
        (b"[-Infinity]", [], True),
        (b'[1,{"a":Infinity}]', [b"1"], True),
        (b"[1," + b"[" * 100_000, [b"1"], True),
        (b"1", [], True),
        (b'"a"', [], True),
        (b"x", [], True),
        (b"\x0b[]", [], True),
    ],
)
def test_what_stands_before_a_fault_counts(body: bytes, found: list[bytes], is_bad: bool) -> None:  # noqa: FBT001
    assert ends(body) == (found, NO_EVENTS if is_bad else None)
