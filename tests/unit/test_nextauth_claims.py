"""What the claims of a front end's token say: who it is, and from when to when it counts."""

from __future__ import annotations

import pytest

from tests.support.session_tokens import EACH, NOW, load, made


class TestClaims:
    @EACH
    @pytest.mark.parametrize(
        ("claims", "expected"),
        [
            ({"id": "u-9"}, "u-9"),
            ({"id": 42}, "42"),
            ({"id": ""}, "user-123"),
            ({"id": None}, "user-123"),
            ({"id": True}, "user-123"),
            ({"id": {"a": 1}}, "user-123"),
            ({"id": "nul\x00"}, "user-123"),
            ({"id": "\ud800"}, "user-123"),
            ({"id": "x" * 256}, "user-123"),
        ],
    )
    def test_the_id_is_the_claim_id_where_it_is_usable_else_sub(self, version, claims, expected):
        assert load(version, made(version, **claims)).id == expected

    @EACH
    @pytest.mark.parametrize("sub", [..., None, "", "  ", 1.5, [], "a\nb"])
    def test_without_a_usable_id_there_is_nobody(self, version, sub):
        assert load(version, made(version, sub=sub)) is None

    @EACH
    @pytest.mark.parametrize(("given_", "expected"), [(True, True), ("true", False), (1, False)])
    def test_an_email_is_verified_only_where_the_claim_is_true(self, version, given_, expected):
        assert load(version, made(version, email_verified=given_)).email_verified is expected

    @EACH
    def test_an_organization_comes_along(self, version):
        assert load(version, made(version, organizationId="org-7")).organization_id == "org-7"

    @EACH
    def test_half_a_surrogate_pair_in_a_name_is_replaced(self, version):
        assert load(version, made(version, name="Ada \ud83d")).name == "Ada ?"

    @EACH
    @pytest.mark.parametrize("seconds", [1, 0, -14])
    def test_a_token_counts_for_fifteen_seconds_more(self, version, seconds):
        assert load(version, made(version, exp=NOW + seconds)) is not None

    @EACH
    @pytest.mark.parametrize(
        "claims",
        [
            {"exp": NOW - 15},
            {"exp": ...},
            {"exp": None},
            {"exp": str(NOW + 60)},
            {"exp": True},
            {"exp": float("nan")},
            {"exp": float("inf")},
            {"exp": 10**400},
            {"nbf": NOW + 16},
            {"nbf": "soon"},
            {"nbf": True},
        ],
        ids=str,
    )
    def test_outside_its_time_a_token_gives_nobody(self, version, claims):
        assert load(version, made(version, **claims)) is None
