from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from typing import cast

import pytest

from inngest_outbox.config.settings import Settings
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.figures import Stats
from inngest_outbox.outbox.model import DeliveryRecord
from inngest_outbox.outbox.ports import Inspector
from inngest_outbox.processes.banner import Announcer, Standing, announcer_for, banner, standing_of

URL = "http://127.0.0.1:3000"
OF_OUR_OWN = {"INNGEST_BASE_URL": "http://inngest:8288", "INNGEST_EVENT_KEY": "k"}
UNTIL = "missing: set {}; until then posts of documents are answered 503"
DEVELOPMENT = f"{URL}/auth/dev-login (development)"
HIDDEN = "postgresql://u:********@h/x, 1,234 events wait"
OIDC = {
    "OIDC_ISSUER": "https://id.example.com",
    "OIDC_CLIENT_ID": "outbox",
    "OIDC_CLIENT_SECRET": "secret",
}


def lines(waiting: int | None = 1234, **environ: str) -> dict[str, str]:
    inngest = "https://inn.gs"
    return banner(Settings.load(environ), URL, inngest=inngest, standing=Standing(waiting))


FAKE = "http://127.0.0.1:8299"
ALL = {
    **OIDC,
    "NEXTAUTH_SECRET": "0123456789abcdef",
    "JWT_ISSUER": "https://tokens.example.com",
    "OUTBOX_EVENT_KEYS": "shop:0123456789abcdef,cron:x,cron:y",
    "EVENT_TYPES_FILE": "a\x1b.yaml",
    "OPERATOR_EMAILS": "ada@example.com, bob@example.com",
}
TOLD = f"""\
events go to: a fake Inngest, for development: {FAKE}/fake-inngest/events shows them
delivery: paused by ada: upgrade\ufffd[2J; `outbox resume` starts it again
confirmation: off (a fake Inngest keeps nothing)
outbox: sqlite:///data/outbox.db, 0 events wait
storage: {UNTIL.format("AWS_S3_REGION and AWS_S3_BUCKET")}
sign in: {URL}/auth/login (https://id.example.com), cookies of next-auth, \
tokens of https://tokens.example.com, {DEVELOPMENT}
machines: cron, shop, at {URL}/e/<event key>
event types: those of a\ufffd.yaml too
operators: ada@example.com, bob@example.com
pages: {URL}/, {URL}/docs, {URL}/outbox"""


def test_the_banner_has_a_line_of_all_that_is_configured_and_known_in_this_order() -> None:
    """Who is an operator is said where the Inngest is a fake."""
    paused = Standing(0, "paused by ada: upgrade\x1b[2J")
    settings = Settings.load(ALL).with_fake_inngest(FAKE)
    told = banner(settings, URL, inngest=FAKE, standing=paused)
    assert [": ".join(one) for one in told.items()] == TOLD.splitlines()


def test_the_banner_has_no_line_of_what_is_not_configured_or_not_known() -> None:
    fake = Settings.load({}).with_fake_inngest(FAKE)
    for told in (
        lines(None, OPERATOR_EMAILS="ada@example.com"),
        banner(fake, URL, inngest=FAKE, standing=Standing()),
    ):
        assert " ".join(told) == "events go to confirmation outbox storage sign in pages"
        assert told["outbox"] == "sqlite:///data/outbox.db"


@pytest.mark.parametrize(
    ("environ", "label", "words"),
    [
        ({"INNGEST_EVENT_KEY": "k"}, "events go to", "https://inn.gs (cloud)"),
        (OF_OUR_OWN, "events go to", "https://inn.gs (self-hosted)"),
        ({"INNGEST_DEV": "1"}, "events go to", "https://inn.gs (dev server)"),
        ({"INNGEST_EVENT_KEY": "k"}, "confirmation", "off (Inngest's cloud)"),
        ({}, "outbox", "sqlite:///data/outbox.db, 1,234 events wait"),
        ({"OUTBOX_URL": "postgresql://u:secret@h/x"}, "outbox", HIDDEN),
    ],
)
def test_the_banner_says(environ: dict[str, str], label: str, words: str) -> None:
    assert lines(**environ)[label] == words


@pytest.mark.parametrize("region", [{}, {"AWS_S3_REGION": "eu-west-1"}])
@pytest.mark.parametrize("bucket", [{}, {"AWS_S3_BUCKET": "documents"}])
def test_the_banner_says_what_the_storage_lacks(
    region: dict[str, str], bucket: dict[str, str]
) -> None:
    named = {"AWS_S3_REGION": region, "AWS_S3_BUCKET": bucket}
    missing = " and ".join(name for name, given in named.items() if not given)
    words = UNTIL.format(missing) if missing else "bucket documents in eu-west-1"
    assert lines(**region, **bucket)["storage"] == words


FRONT_ENDS = ("NEXTAUTH_SECRET", "AUTH_SECRET", "AUTH_SECRET_2", "NEXTAUTH_URL")
ELSEWHERE = {"HOST": "0.0.0.0"}


@pytest.mark.parametrize("oidc", [{}, OIDC])
@pytest.mark.parametrize("front_end", [None, *FRONT_ENDS])
@pytest.mark.parametrize("jwt", [{}, {"JWT_ISSUER": "https://tokens.example.com"}])
@pytest.mark.parametrize(
    ("place", "is_for_all"),
    [
        *(({"HOST": one}, True) for one in ("127.0.0.2", "localhost", "::1")),
        *((ELSEWHERE | login, bool(login)) for login in ({}, {"DEV_LOGIN": "1"})),
        ({"APP_ENV": "production", "SESSION_SECRET": "x" * 16, "INNGEST_EVENT_KEY": "k"}, False),
    ],
)
def test_the_banner_names_each_way_to_sign_in(
    oidc: dict[str, str],
    front_end: str | None,
    jwt: dict[str, str],
    place: dict[str, str],
    is_for_all: bool,  # noqa: FBT001
) -> None:
    ways = {
        f"{URL}/auth/login (https://id.example.com)": oidc,
        "cookies of next-auth": front_end,
        "tokens of https://tokens.example.com": jwt,
        DEVELOPMENT: is_for_all,
    }
    none = "no way: set OIDC_ISSUER, NEXTAUTH_SECRET or AUTH_SECRET"
    cookies = {front_end: "https://shop.example.com"} if front_end else {}
    said = lines(**oidc, **cookies, **jwt, **place)["sign in"]
    assert said == (", ".join(way for way, given in ways.items() if given) or none)


def test_the_banner_says_that_one_event_waits() -> None:
    assert lines(1)["outbox"] == "sqlite:///data/outbox.db, 1 event waits"


def test_in_production_there_is_no_start_page() -> None:
    told = lines(APP_ENV="production", SESSION_SECRET="x" * 16, INNGEST_EVENT_KEY="k")
    assert told["pages"] == f"{URL}/docs, {URL}/outbox"


class Told:
    """An outbox whose figures are `stats`, None while it can't be read."""

    def __init__(self, stats: Stats | None) -> None:
        self._stats = stats

    async def stats(self) -> Stats:
        if self._stats is None:
            raise OutboxUnavailableError
        return self._stats


def record(paused_by: str | None) -> DeliveryRecord:
    return DeliveryRecord(
        "backing_off", "HTTP 503", 1, 1, 5.0, 0, paused_by=paused_by, pause_reason="upgrade"
    )


@pytest.mark.parametrize(
    ("stats", "standing"),
    [
        (None, Standing(None, "")),
        (Stats(1, 2, 30, 40, None, None, record(None), 0, None, sent=4), Standing(7, "")),
        (Stats(0, 0, 0, 0, None, None, record(None), 0, None), Standing(0, "")),
        (
            Stats(0, 0, 0, 0, None, None, record("ada"), 0, None),
            Standing(0, "paused by ada: upgrade"),
        ),
    ],
)
async def test_what_waits_is_all_that_is_not_delivered_and_only_a_pause_is_told(
    stats: Stats | None, standing: Standing
) -> None:
    assert await standing_of(cast("Inspector", Told(stats))) == standing


@contextlib.contextmanager
def heard() -> Iterator[io.FileIO]:
    """A reader of the standard output."""
    reading, writing = os.pipe()
    for one in (reading, writing):
        os.set_blocking(one, False)
    with os.fdopen(reading, "rb", buffering=0) as reader, os.fdopen(writing, "w") as stdout:
        with contextlib.redirect_stdout(stdout):
            yield reader
        with contextlib.suppress(OSError):
            stdout.close()


def test_the_banner_is_text_for_people_and_one_line_of_json_for_programs() -> None:
    with heard() as reader:
        for given in ("auto", "console"):
            settings = Settings.load({"LOG_FORMAT": given})
            announcer_for(settings).say("Listening on x", {"outbox": "y"})
            assert reader.read(10**7) == b"Listening on x\n  outbox        y\n"
        announcer_for(Settings.load({"LOG_FORMAT": "json"})).say("Listening on x", {"outbox": "y"})
        told = json.loads(reader.read(10**7) or b"")
    assert told.pop("timestamp").endswith("Z")
    assert told == {
        "event": "announcement",
        "message": "Listening on x",
        "level": "info",
        "outbox": "y",
    }


def test_a_sentence_whose_reader_has_gone_is_no_error() -> None:
    with heard() as reader:
        reader.close()
        Announcer(as_json=False).say("Store process ended with -9: starting it again.")


def test_a_sentence_for_a_reader_that_is_stuck_is_lost() -> None:
    with heard() as reader:
        Announcer(as_json=False).say("At once.")
        assert reader.read(100) == b"At once.\n"
        for size in (4096, 1):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(sys.stdout.fileno(), b"x" * size)
        Announcer(as_json=False).say("Nobody reads this.")
        assert b"Nobody" not in (reader.read(10**7) or b"")
        sys.stdout.flush()
        assert reader.read() is None
