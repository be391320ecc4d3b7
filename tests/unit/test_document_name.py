"""The rules for a documentName."""

from __future__ import annotations

import unicodedata

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inngest_outbox.documents.document_name import check_document_name
from inngest_outbox.errors import DocumentNameInvalidError, DocumentNameRequiredError, RefusedError

pieces = st.sampled_from([".", "..", "/", "a", " ", "é", "\U0001f600", "\x00", "\x85", "\ud800"])
names = st.one_of(
    st.text(st.characters(), max_size=40),
    st.lists(pieces, max_size=8).map("".join),
    st.integers(1000, 1030).map("a".__mul__),
    st.integers(500, 520).map("é".__mul__),
)


def verdict_by_the_book(name: str) -> str | None:
    if not name.strip():
        return "document_name_required"
    kinds = {unicodedata.category(character) for character in name}
    if kinds & {"Cc", "Cs"} or len(name.encode()) > 1024:
        return "document_name_invalid"
    if {".", ".."} & set(name.split("/")):
        return "document_name_invalid"
    return None


@given(names)
@example("a/./b")
@example("../a")
@example("a/..")
@example("..")
@example("...")
@example(".env")
@example("a..b/c.")
@example("/")
@example("\n")
@example("a\x1f")
@example("a\x7f")
@example("a\x9f")
@example("\u2028")
@example("e\u0301")
@example("..\n")
@example("a" * 1024)
@example("a" * 1025)
@example("é" * 512)
@example("é" * 513)
def test_the_verdict_is_that_of_the_rules_read_literally(name):
    try:
        verdict = None if check_document_name(name) is name else "changed"
    except RefusedError as error:
        verdict = error.code
    assert verdict == verdict_by_the_book(name)


@pytest.mark.parametrize("value", [None, msgspec.UNSET, "", " ", "\t\u00a0\u3000"])
def test_a_missing_or_blank_name_is_required(value):
    with pytest.raises(DocumentNameRequiredError):
        check_document_name(value)


@pytest.mark.parametrize("value", [0, 1.5, True, [], ["a"], {}, b"a"])
def test_a_name_that_is_not_a_string_is_invalid(value):
    with pytest.raises(DocumentNameInvalidError):
        check_document_name(value)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("secret \ud800", "has a lone surrogate"),
        ("secret \x00", "has a control character"),
        ("secret" * 200 + "é", "is longer than 1,024 bytes of UTF-8"),
        ("secret/..", "has a . or .. path segment"),
        (["secret"], "is not a string"),
    ],
)
def test_a_refusal_neither_repeats_the_name_nor_carries_it_along(name, fault):
    with pytest.raises(DocumentNameInvalidError) as caught:
        check_document_name(name)
    assert str(caught.value) == f"documentName {fault}"
    assert caught.value.__suppress_context__ or not caught.value.__context__
