"""The encrypted field: other libraries' bytes are read, and ours have their form."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.encryption import Encryption

KEY = "my-secret-key"

# Made by the middleware of each SDK under KEY with the nonce 0, 1, … 23.
BY_JAVASCRIPT = (
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXAbMypioGGl0zoOEbuLWupDSLhe4sgs9vHbyJSL47+25jLiObZA2jKm2CrA=="
)
BY_PYTHON = (
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXFhleTSiC0HoXK7P2PstCoTSLhe4sgs9vHb6TRr8h42hgJziVau49VCKD4VeV"
    "DPXi9W0="
)
NO_JSON = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXn2FPjdwGttwpu3sVR1wWpCHG1cwQo+Q="  # under KEY, too
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=8,
)


def marked(data: str) -> dict[str, object]:
    return {"__ENCRYPTED__": True, "__STRATEGY__": "inngest/libsodium", "data": data}


@pytest.mark.parametrize("data", [BY_JAVASCRIPT, BY_PYTHON])
def test_a_field_of_an_sdk_is_read(data: str) -> None:
    assert Encryption([KEY]).decrypted(marked(data)) == {"phone": "867-5309", "ü": 1}


@given(st.dictionaries(st.text("abc", min_size=1), JSON, min_size=1))
def test_what_is_encrypted_comes_back(data: dict[str, object]) -> None:
    encryption = Encryption([KEY])
    made = encryption.encrypt(data, None)
    assert made == {"encrypted": marked(made["encrypted"]["data"])}
    assert encryption.decrypted(made["encrypted"]) == data


@pytest.mark.parametrize(
    ("data", "fields", "moved"),
    [
        ({"phone": "867-5309", "order": 7}, ["phone", "city"], {"phone"}),
        ({"phone": None, "order": 7}, ["order", "phone"], {"phone", "order"}),
        (
            {"phone": "867-5309", "encrypted": "by nobody", "order": 7},
            ["phone"],
            {"phone", "encrypted"},
        ),
        ({"encrypted": "by nobody", "order": 7}, ["phone"], {"encrypted"}),
        ({"order": 7}, ["phone"], set()),
        ({"order": 7}, None, {"order"}),
        ({}, None, set()),
    ],
)
def test_named_fields_move_and_the_others_stay_readable(
    data: dict[str, object], fields: list[str] | None, moved: set[str]
) -> None:
    encryption = Encryption([KEY])
    made = dict(encryption.encrypt(data, fields))
    hidden = encryption.decrypted(made.pop("encrypted")) if moved else {}
    assert hidden == {name: data[name] for name in moved}
    assert made == {name: data[name] for name in data if name not in moved}


def test_data_that_an_sdk_encrypted_stays_as_it_is() -> None:
    data = {"encrypted": marked(BY_JAVASCRIPT), "order": 7}
    assert Encryption(["another"]).encrypt(data, None) == data
    for other in (False, "true", 1):
        pretended = {"encrypted": {**marked(BY_JAVASCRIPT), "__ENCRYPTED__": other}}
        made = Encryption([KEY]).encrypt(pretended, None)
        assert Encryption([KEY]).decrypted(made["encrypted"]) == pretended


def test_the_first_key_encrypts_an_old_one_still_opens_and_an_unknown_one_does_not() -> None:
    old = Encryption([KEY]).encrypt({"a": 1}, None)["encrypted"]
    rotated = Encryption(["new", KEY])
    assert rotated.decrypted(old) == {"a": 1}
    new = rotated.encrypt({"a": 1}, None)["encrypted"]
    assert Encryption(["new"]).decrypted(new) == {"a": 1}
    assert Encryption(["new"]).decrypted(old) == old
    without = {"__ENCRYPTED__": True}
    deep = Encryption([KEY])._sealed(b"[" * 100_000)
    for other in (
        "plain",
        without,
        {**without, "data": 7},
        marked("no base64"),
        marked(NO_JSON),
        deep,
    ):
        assert Encryption([KEY]).decrypted(other) == other


def test_a_payload_is_shown_in_plain_and_other_bytes_as_they_are() -> None:
    encryption = Encryption([KEY])
    data = encryption.encrypt({"phone": "867-5309"}, None)
    payload = msgspec.json.encode({"name": "n", "data": data}) + b" "
    shown = msgspec.json.decode(encryption.revealed(payload)[0])
    assert shown == {"name": "n", "data": {"encrypted": {"phone": "867-5309"}}}
    for other in (b"{}", b'{"data":{"a":1}}', b'{"data":null}', b"\xff", b"[" * 100_000):
        assert encryption.revealed(other) == (other, None)
    assert Encryption(["another"]).revealed(payload) == (payload, None)


def test_two_encryptions_of_equal_data_differ_and_their_digests_agree() -> None:
    one = Encryption([KEY])
    assert one.encrypt({"a": 1}, None) != one.encrypt({"a": 1}, None)
    [digest] = one.digests(b"body")
    # Of another key than the data's; it stays the same, or a repeat would be a new event.
    assert digest.hex() == "60cf1c64b99e854464e9c5b6015e6796d3b3693acfc634ebf2a779ed80646c24"
    assert Encryption(["new", KEY]).digests(b"body")[1] == digest
