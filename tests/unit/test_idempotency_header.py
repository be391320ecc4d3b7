"""The Idempotency-Key of a request: which keys are taken, and which bodies are one use."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import IdempotencyKeyInvalidError
from service.outbox.keys import plain_digests
from service.web.intake.idempotency import IDEMPOTENCY_PARAMETER, given_key, idempotency_key
from tests.support.made_request import made_request


def headers(*keys: str) -> list[tuple[str, str]]:
    return [("Idempotency-Key", key) for key in keys]


@pytest.mark.parametrize("key", ["k", "!~", "x" * 255])
async def test_a_key_of_visible_ascii_is_taken(key: str) -> None:
    assert given_key(made_request(headers=headers(key))) == key


async def test_a_request_may_have_no_key() -> None:
    assert given_key(made_request()) is None
    assert idempotency_key(made_request(), "/p", {}, plain_digests) is None


@pytest.mark.parametrize("keys", [("",), ("x" * 256,), ("a b",), ("é",), ("a\x7f",), ("a", "a")])
async def test_another_key_or_a_second_one_is_refused(keys: tuple[str, ...]) -> None:
    with pytest.raises(IdempotencyKeyInvalidError):
        idempotency_key(made_request(headers=headers(*keys)), "/p", {}, plain_digests)


async def test_the_description_says_which_keys_are_taken() -> None:
    assert IDEMPOTENCY_PARAMETER.place == "header"
    schema = IDEMPOTENCY_PARAMETER.schema
    assert (schema["minLength"], schema["maxLength"]) == (1, 255)


async def digest(path: str, body: Any) -> bytes:
    key = idempotency_key(made_request(headers=headers("k")), path, body, plain_digests)
    assert key
    assert key.key == "k"
    assert len(key.digest) == 32
    return key.digest


async def test_equal_bodies_for_one_path_are_one_use_whatever_their_order() -> None:
    first = await digest("/p", {"a": 1, "b": {"c": 2, "d": 3}})
    assert first == await digest("/p", {"b": {"d": 3, "c": 2}, "a": 1})
    others = [
        await digest("/q", {"a": 1, "b": {"c": 2, "d": 3}}),
        await digest("/p", {"a": 2, "b": {"c": 2, "d": 3}}),
        await digest("/p", {"a": 1, "b": {"c": 2}}),
        await digest("/p{", {}),
    ]
    assert len({first, *others}) == 5
