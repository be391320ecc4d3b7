"""The key under which a user's upload is stored."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inngest_outbox.documents.document_name import (
    check_content_type,
    check_document_name,
    check_size,
    upload_key,
    upload_prefix,
)
from inngest_outbox.errors import DocumentNameInvalidError, DocumentNameRequiredError, RefusedError

NO_TYPE = "^contentType is not a media type such as application/pdf$"
NO_SIZE = "^size is not a whole number of bytes from 1 to 5 GiB$"
user_ids = st.text(st.characters(), max_size=300)


@example("u-1", "/a")
@given(user_ids, st.text(st.characters(), max_size=1024))
def test_every_key_is_a_document_name_under_the_users_own_prefix(user_id, name):
    try:
        key = upload_key(user_id, name)
    except RefusedError:
        return
    assert check_document_name(key) == key == upload_prefix(user_id) + name


@given(user_ids, user_ids)
def test_two_users_never_share_a_prefix(one, other):
    prefixes = upload_prefix(one), upload_prefix(other)
    assert (prefixes[0] == prefixes[1]) == (one == other)
    assert one == other or not prefixes[0].startswith(prefixes[1])


def test_a_name_that_fits_only_without_the_prefix_is_refused():
    room = 1024 - len(upload_prefix("u-1"))
    assert len(upload_key("u-1", "a" * room)) == 1024
    for name in ("a" * (room + 1), "ä" * (room // 2 + 1)):
        with pytest.raises(DocumentNameInvalidError, match="is too long for an upload"):
            upload_key("u-1", name)


def test_a_name_that_s3_would_complete_is_refused_and_one_that_is_missing_is_required():
    with pytest.raises(DocumentNameInvalidError, match="which S3 would replace"):
        upload_key("u-1", "a/${filename}")
    with pytest.raises(DocumentNameRequiredError):
        upload_key("u-1", None)


@pytest.mark.parametrize(
    "value",
    [
        "application/pdf",
        "image/svg+xml",
        "Text/HTML; charset=UTF-8",
        "a/" + "b" * 127,
        "text/plain; charset=utf-8",
        "text/plain\t;\tcharset=utf-8;format=flowed",
        'multipart/mixed; boundary="a b"',
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        'text/plain; name=""; other=";"',
        "text/plain; a=" + "b" * 241,  # 255 characters
    ],
)
def test_a_media_type_is_taken_unchanged(value):
    assert check_content_type(value) == value


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "pdf",
        "application/",
        "+a/b",
        "a/.b",
        "/pdf",
        "*/*",
        "image/*",
        "a/b/c",
        "text/plain;",
        "text/plain; charset",
        "text/plain\r\nx: y",
        "text/plain\n",
        "téxt/plain",
        'text/plain; name="${filename}"',
        'text/plain; name="\\"',
        "text/${filename}",
        "text/plain; a=" + "b" * 242,
        "a/" + "b" * 128,
        5,
        ["text/plain"],
    ],
)
def test_what_is_no_media_type_is_refused(value):
    with pytest.raises(RefusedError, match=NO_TYPE):
        check_content_type(value)


def test_a_size_is_a_whole_number_of_1_to_5_gib():
    for value in (1, 5 * 1024**3):
        assert check_size(value) == value
    for value in (None, 0, -1, 5 * 1024**3 + 1, 1.0, "1", True, 1e400):
        with pytest.raises(RefusedError, match=NO_SIZE):
            check_size(value)
