from __future__ import annotations

import hashlib

import pytest

from service.dev.fake_inngest.rest_api import SigningKey

HEX = "0123456789abcdef"
HASHED = hashlib.sha256(bytes.fromhex(HEX)).hexdigest()


@pytest.mark.parametrize("given", [HEX, f"signkey-prod-{HEX}"])
@pytest.mark.parametrize(
    "brought",
    [HEX, f"signkey-prod-{HEX}", f"signkey-branch-{HEX}", HASHED, f"signkey-prod-{HASHED}"],
)
def test_the_key_is_accepted_in_all_its_forms(given, brought):
    assert SigningKey(given).accepts(f"Bearer {brought}")


@pytest.mark.parametrize(
    "header", [None, "", HEX, f"Basic {HEX}", "Bearer ", "Bearer 00", f"Bearer {HEX}0"]
)
def test_anything_else_is_refused(header):
    assert not SigningKey(HEX).accepts(header)


def test_a_key_that_is_not_hex_is_no_key():
    with pytest.raises(ValueError, match="hex"):
        SigningKey("signkey-prod-xyz")
