"""The encrypted field: other libraries' bytes are read, and ours have their form."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inngest_outbox.encryption import Encryption

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


NAMES = st.sampled_from(["a", "b", "c", "encrypted"])


@given(st.dictionaries(NAMES, JSON), st.none() | st.sets(NAMES))
@example({"a": 1, "encrypted": "by nobody"}, {"a"})
@example({"a": None, "b": 1}, {"a", "c"})
@example({"a": 1}, {"b"})
@example({}, None)
def test_fields_that_move_come_back_and_the_others_stay_readable(
    data: dict[str, object], fields: set[str] | None
) -> None:
    encryption = Encryption([KEY])
    made = dict(encryption.encrypt(data, fields))
    moved = {*data} if fields is None else {*data} & {*fields, "encrypted"}
    if moved:
        sealed = made.pop("encrypted")
        assert sealed == marked(sealed["data"])
        assert encryption.decrypted(sealed) == {name: data[name] for name in moved}
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
    unread = [marked(data) for data in ("", "no base64", f"!{BY_PYTHON}", NO_JSON)]
    for other in ("plain", without, {**without, "data": 7}, *unread, deep):
        assert Encryption([KEY]).decrypted(other) == other


@pytest.mark.parametrize("others", [[], ["b"], ["b", "c"]])
def test_a_payload_is_shown_in_plain_and_other_bytes_as_they_are(others: list[str]) -> None:
    encryption = Encryption([*others, KEY])
    made = Encryption([KEY]).encrypt({"phone": "867-5309", "order": 7}, ["phone"])
    payload = msgspec.json.encode({"name": "n", "id": "x", "data": made}) + b" "
    shown, place = encryption.revealed(payload)
    plain = {"order": 7, "encrypted": {"phone": "867-5309"}}
    assert msgspec.json.decode(shown) == {"name": "n", "id": "x", "data": plain}
    assert place == len(others)
    for other in (b"{}", b'{"data":{"a":1}}', b'{"data":null}', b"\xff", b"[" * 100_000):
        assert encryption.revealed(other) == (other, None)
    assert Encryption(["another", *others]).revealed(payload) == (payload, None)


def test_two_encryptions_of_equal_data_differ_and_their_digests_agree() -> None:
    one = Encryption([KEY])
    assert one.encrypt({"a": 1}, None) != one.encrypt({"a": 1}, None)
    [digest] = one.digests(b"body")
    # Of another key than the data's; it stays the same, or a repeat would be a new event.
    assert digest.hex() == "60cf1c64b99e854464e9c5b6015e6796d3b3693acfc634ebf2a779ed80646c24"
    assert Encryption(["new", KEY]).digests(b"body")[1] == digest
