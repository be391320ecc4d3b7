"""The users' settings: how they merge, when they are read again, and the packaged defaults."""

from __future__ import annotations

import asyncio
import json

import pytest

from inngest_outbox.app_settings.app_settings import (
    AppSettings,
    load_defaults,
    merge,
    parse_settings,
)
from inngest_outbox.errors import InvalidJsonError
from inngest_outbox.identity.user import User
from tests.support.memory_scopes import MemoryScopes

ADA = User("dev", "ada", organization_id="org")
BOB = User("dev", "bob")


@pytest.fixture
def scopes() -> MemoryScopes:
    return MemoryScopes()


async def effective(app_settings, user):
    return json.loads(bytes(await app_settings.effective(user)))


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        ({}, {}, {}),
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"d": 2}}}, {"a": {"b": {"c": 1, "d": 2}}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": [{"b": 1}]}, {"a": [{"c": 1}]}, {"a": [{"c": 1}]}),
        ({"a": 1}, {"a": None}, {"a": None}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": None}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": {}}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": 2}, {"a": 2}),
        ({"a": 2}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": True}, {"a": False}, {"a": False}),
    ],
    ids=str,
)
def test_objects_merge_key_by_key_and_everything_else_replaces(below, above, expected):
    before = json.dumps([below, above])
    assert merge(below, above) == expected
    assert json.dumps([below, above]) == before


async def test_the_system_the_organization_and_the_user_are_merged_in_that_order(scopes):
    settings = AppSettings(scopes, {"a": 1, "b": 1, "c": {"x": 1}})
    await settings.replace_organization("org", {"b": 2, "c": {"y": 2}})
    await settings.replace_user("dev ada", {"c": {"x": 3}, "b": None})
    await settings.replace_user("dev bob", {"a": 4})
    for organization, user, expected in (
        ("org", "ada", {"a": 1, "b": None, "c": {"x": 3, "y": 2}}),
        ("org", "eve", {"a": 1, "b": 2, "c": {"x": 1, "y": 2}}),
        ("org", "bob", {"a": 4, "b": 2, "c": {"x": 1, "y": 2}}),
        *((none, "ada", {"a": 1, "b": None, "c": {"x": 3}}) for none in (None, "other")),
        *((none, "bob", {"a": 4, "b": 1, "c": {"x": 1}}) for none in (None, "other")),
        *((none, "eve", {"a": 1, "b": 1, "c": {"x": 1}}) for none in (None, "other")),
    ):
        asking = User("dev", user, organization_id=organization)
        assert await effective(settings, asking) == expected


async def test_a_change_by_this_or_another_process_shows_at_once(scopes):
    settings = AppSettings(scopes, {"a": 1})
    assert await effective(settings, ADA) == {"a": 1}
    await settings.replace_user("dev ada", {"a": 2})
    assert await effective(settings, ADA) == {"a": 2}
    await scopes.save_scope("organization", "org", {"b": 3})
    assert await effective(settings, ADA) == {"a": 2, "b": 3}


async def test_a_change_during_the_reading_is_not_overlooked(scopes):
    settings = AppSettings(scopes, {})
    load = scopes.load_scope

    async def load_and_change(scope, scope_id):
        found = await load(scope, scope_id)
        scopes.load_scope = load
        await scopes.save_scope("user", "dev bob", {"changed": True})
        return found

    scopes.load_scope = load_and_change
    assert await effective(settings, BOB) == {}
    assert await effective(settings, BOB) == {"changed": True}


async def test_a_slow_reading_from_before_a_change_is_not_remembered_after_it(scopes):
    """Another request notices the change while the first one still reads."""
    settings = AppSettings(scopes, {})
    load, reading, change = scopes.load_scope, asyncio.Event(), asyncio.Event()

    async def slow_load(scope, scope_id):
        found = await load(scope, scope_id)
        reading.set()
        await change.wait()
        return found

    scopes.load_scope = slow_load
    slow = asyncio.create_task(effective(settings, BOB))
    await reading.wait()
    scopes.load_scope = load
    await settings.replace_user("dev bob", {"changed": True})
    await settings.effective(ADA)
    change.set()
    assert await slow == {}
    assert await effective(settings, BOB) == {"changed": True}


async def test_equal_ids_of_two_issuers_have_settings_of_their_own(scopes):
    settings = AppSettings(scopes, {})
    one, other = User("dev", "1"), User("https://issuer.example", "1")
    await settings.replace_user(one.owner, {"mine": True})
    assert await effective(settings, one) == {"mine": True}
    assert await effective(settings, other) == {}


async def test_the_settings_of_10000_users_are_remembered(scopes):
    settings = AppSettings(scopes, {"a": 1})
    for number in (*range(10_001), *range(1, 10_001)):
        await settings.effective(User("dev", str(number)))
    assert scopes.loads == 10_001
    await settings.effective(User("dev", "0"))
    assert scopes.loads == 10_002


async def test_of_what_is_remembered_64_mib_are_kept(scopes):
    settings = AppSettings(scopes, {"a": "x" * (32 * 1024**2 - len('{"a":""}'))})
    load = scopes.load_scope

    async def slow_load(scope, scope_id):
        await asyncio.sleep(0)
        return await load(scope, scope_id)

    scopes.load_scope = slow_load
    for _ in range(2):
        for name in ("a", "b", "c"):
            user = User("dev", name)  # who is loaded twice at once, and counts once
            await asyncio.gather(settings.effective(user), settings.effective(user))
        scopes.loads = 0
        for name in ("b", "c"):
            await settings.effective(User("dev", name))
        assert scopes.loads == 0
        await settings.effective(User("dev", "a"))
        assert scopes.loads == 1
        scopes.scope_revision += 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"{",
        b'{"a":NaN}',
        b'{"a":1}x',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":1e999}',
        b'{"a":[{"b":-1e999}]}',
        b"\xef\xbb\xbf{}",
        b'{"a":' + b"[" * 30_000,
        b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_settings_that_are_no_sound_object_are_refused(body):
    with pytest.raises(InvalidJsonError):
        parse_settings(body)


HUGE = [b'{"a":[0,{"b":%b%b}]}' % (sign, b"9" * 400) for sign in (b"", b"-")]
NUMBER = "The settings have a number that most programs can't read."
DEEP = "The settings are nested more than 64 levels deep."


@pytest.mark.parametrize(
    ("body", "words"),
    [
        *((body, NUMBER) for body in HUGE),
        (b'{"a":' * 65 + b"1" + b"}" * 65, DEEP),
        (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", DEEP),
    ],
    ids=["huge", "hugely negative", "deep", "deep lists"],
)
def test_of_settings_that_few_programs_can_read_it_is_said_why(body, words):
    with pytest.raises(InvalidJsonError) as refused:
        parse_settings(body)
    assert str(refused.value) == words


def test_settings_may_be_nested_64_deep_and_have_any_number_that_a_double_holds():
    assert parse_settings(b'{"a":' * 64 + b"1" + b"}" * 64)
    kept = {"a": 1e308, "b": 12345678901234567890}
    assert parse_settings(b'{"a": 1e308, "b": 12345678901234567890}') == kept


def test_the_packaged_defaults_are_an_object():
    assert load_defaults(None) == {
        "indexing": {
            "enabled": True,
            "language": "auto",
            "chunkCharacters": 2000,
            "chunkOverlapCharacters": 200,
        },
        "notifications": {"onDone": False, "onFailure": True},
    }
