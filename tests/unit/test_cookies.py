"""The Cookie header: what a browser keeps under one name never counts under another."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given
from hypothesis import strategies as st

from inngest_outbox.identity.cookie_session import CookieSessionStorage, SignedIn
from inngest_outbox.identity.cookies import cookie_header, parse_cookies
from inngest_outbox.identity.sign_in_attempt import AttemptCookie, begin_attempt
from inngest_outbox.identity.user import User
from tests.support.session_tokens import (
    EACH,
    FLAVOURS,
    SECRET,
    NextAuthReader,
    clock,
    found_by,
    made,
)

NAME = "__Host-outbox_session"
# What browsers keep in a cookie: anything but the separator and line ends.
KEPT = st.text(st.characters(exclude_characters=";\r\n\0", exclude_categories=["Cs"]), max_size=60)
SPACES = ["\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u3000", "\ufeff"]


@given(value=KEPT)
@example(value=f"x {NAME}=planted")
@example(value=f'"x\\073 {NAME}=planted"')
@example(value=f"x,{NAME}=planted")
@example(value=f'x"; {NAME}=planted'.replace(";", ","))
def test_no_value_makes_a_cookie_of_another_name(value):
    assert parse_cookies(f"theme={value}").keys() == {"theme"}


@given(pairs=st.lists(st.tuples(st.sampled_from("abc"), KEPT)))
def test_of_a_name_that_comes_twice_the_first_counts(pairs):
    parsed = parse_cookies("; ".join(f"{name}={value}" for name, value in pairs))
    first = {name: value.strip(" \t") for name, value in reversed(pairs)}
    assert parsed.keys() == first.keys()
    assert all(parsed[name] in (value, value[1:-1]) for name, value in first.items())


@pytest.mark.parametrize("space", SPACES)
def test_only_spaces_and_tabs_are_trimmed(space):
    assert NAME not in parse_cookies(f"{space}{NAME}=planted; {NAME}{space}=planted")
    assert parse_cookies(f" \t{NAME} \t=\t own{space} ") == {NAME: f"own{space}"}


@pytest.mark.parametrize(
    ("sent", "value"),
    [('"x=="', "x=="), ('"', '"'), ('""', ""), ('"x', '"x'), ('"\\073"', "\\073"), ("%41", "%41")],
)
def test_quotation_marks_are_left_out_and_nothing_is_unescaped(sent, value):
    assert parse_cookies(f"a={sent}") == {"a": value}


def test_several_headers_are_one():
    request = make_mocked_request("GET", "/", headers=[("Cookie", "a=1"), ("Cookie", "a=2; b=3")])
    assert parse_cookies(cookie_header(request)) == {"a": "1", "b": "3"}


PLANTED = [
    "theme=x {name}={value}",
    "\u3000{name}={value}",
    "{name}\xa0={value}",
    'theme="x\\073 {name}={value}"',
    "theme=x,{name}={value}",
]


@pytest.mark.parametrize("form", PLANTED)
async def test_a_session_or_an_attempt_inside_another_cookie_is_none(form):
    own = CookieSessionStorage([SECRET], secure=True, clock=clock)
    value = own.seal(SignedIn(User("dev", "attacker"), int(clock())))
    header = form.format(name=NAME, value=value)
    assert (await own.load_session(make_request(header))).empty
    assert not (await own.load_session(make_request(f"{NAME}={value}; {header}"))).empty

    cookie, saved = AttemptCookie([SECRET], secure=True), web.Response()
    cookie.save(saved, begin_attempt("https://own.example/auth/callback", "/"))
    [(name, morsel)] = saved.cookies.items()
    assert cookie.load(make_request(f"{name}={morsel.value}")) is not None
    assert cookie.load(make_request(form.format(name=name, value=morsel.value))) is None


@EACH
def test_of_two_session_cookies_of_a_front_end_the_first_counts(version):
    name = FLAVOURS[version].cookie
    header = f"{name}={made(version, id='first')}; {name}={made(version, id='second')}"
    found = found_by(NextAuthReader(FLAVOURS[version], [SECRET], clock=clock), make_request(header))
    assert found.user.id == "first"


def make_request(header: str):
    return make_mocked_request("GET", "/", headers={"Cookie": header})
