"""Event keys: how they are written, whose they are, and that no fault repeats one."""

from __future__ import annotations

import pytest

from inngest_outbox.config.settings import Settings
from inngest_outbox.config.values import InngestAddress, parse_event_keys
from inngest_outbox.identity.user import EventKeys

KEY = "0123456789abcdef"
OTHER = "fedcba9876543210"


def test_a_name_has_several_keys_and_owns_what_each_of_them_posts() -> None:
    keys = EventKeys(parse_event_keys([f"cron:{KEY}", f" cron : {OTHER} ", "web:k:1", "web:k:1"]))
    owners = [user and user.owner for user in map(keys.user, (KEY, OTHER, "k:1", "guess", ""))]
    assert owners == ["key cron", "key cron", "key web", None, None]


def test_without_keys_nobody_has_one_and_one_that_is_no_text_is_unknown() -> None:
    assert not EventKeys({})
    assert EventKeys({}).user("") is None
    assert EventKeys({KEY: "cron"}).user("\udcff") is None


@pytest.mark.parametrize(
    "pair",
    ["cron", "cron:", f":{KEY}", f"a b:{KEY}", "cron:a/b", "cron:a b", "cron:a%b", "cron:\u00e4"],
)
def test_a_pair_that_can_not_be_used_is_refused_without_its_key(pair: str) -> None:
    with pytest.raises(ValueError, match="write pair 2 as name:key") as refused:
        parse_event_keys([f"good:{OTHER}", pair])
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(("first", "second"), [("cron", "web"), ("web", "cron")])
def test_two_names_have_no_key_in_common(first: str, second: str) -> None:
    with pytest.raises(ValueError, match=f"^{first} and {second} have the same key$"):
        parse_event_keys([f"{first}:{KEY}", f"{second}:{KEY}"])


def test_keys_are_read_from_the_environment_and_never_shown() -> None:
    settings = Settings.load({"OUTBOX_EVENT_KEYS": f"cron:{KEY}, web:{OTHER}"})
    assert len(settings.event_keys) == 2
    assert KEY not in repr(settings)
    assert KEY not in settings.model_dump_json()
    known = settings.with_known_inngest(InngestAddress("http://a", "http://b", OTHER, None))
    assert OTHER not in repr(known)
