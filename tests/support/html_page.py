"""What must be true of each page of the service, whatever it shows."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urlsplit

from tests.support.words import judge_counts

_VOID = {"br", "input", "link", "meta"}
_PARENTS = {
    "dd": {"dl", "div"},
    "dt": {"dl", "div"},
    "figcaption": {"figure"},
    "li": {"ol", "ul"},
    "option": {"datalist", "select"},
    "summary": {"details"},
    "tbody": {"table"},
    "td": {"tr"},
    "th": {"tr"},
    "thead": {"table"},
    "tr": {"tbody", "thead"},
}
_IN_NO_OTHER = {"a", "button", "form", "h1", "h2", "label", "main", "p", "table"}
_IN_NO_P = {"div", "dl", "form", "h1", "h2", "ol", "p", "pre", "section", "table", "ul"}
# Classes without a rule, for scripts and tests.
_HOOKS = {"ago", "list", "next", "note", "pause", "replay", "table"}
_FILTER = {"state", "id", "name", "reason", "user", "payload", "since", "until"}
_CHOICE = {"filter", "event", "all", "seen", "confirmed", "perMinute"}
# The addresses of links and of forms, with the fields that each reads.
_PLACES = {
    "/": set[str](),
    "/docs": set[str](),
    "/auth/dev-login": {"returnTo", "email", "name", "id", "organizationId"},
    "/auth/login": {"returnTo"},
    "/auth/logout": {"returnTo"},
    "/outbox": {"span"},
    "/outbox/audit": {"event", "limit"},
    "/outbox/discard": _CHOICE,
    "/outbox/events": _FILTER | {"before"},
    "/outbox/events/ID": set[str](),
    "/outbox/events/ID/payload": set[str](),
    "/outbox/export": _FILTER | {"as"},
    "/outbox/names": set[str](),
    "/outbox/pause": {"confirmed", "reason"},
    "/outbox/replay": _CHOICE,
    "/outbox/replay/stop": set[str](),
    "/outbox/resume": {"confirmed", "reason"},
}
_BY_POST = {"dev-login", "discard", "logout", "pause", "payload", "replay", "resume", "stop"}
_NOT_SHOWN = r"\bNone\b(?!\. Nothing)|[{}]{2}|[{]%|Undefined|<bound|object at 0x|[ (]nan\b|\binf\b"


class Element:
    """One element of a page, with what is in it."""

    def __init__(self, tag: str, given: dict[str, str | None], above: Element | None) -> None:
        self.tag = tag
        self.given = given
        self.above = above
        self.inside: list[Element] = []
        self.texts: list[str] = []

    def get(self, name: str) -> str:
        return self.given.get(name) or ""

    @property
    def text(self) -> str:
        """Its words, one space between them."""
        return " ".join("".join(self.texts).split())

    def around(self, *tags: str) -> Element | None:
        """The nearest of the elements that it is in."""
        one = self.above
        while one is not None and one.tag not in tags:
            one = one.above
        return one

    def all(self, *tags: str) -> list[Element]:
        """Those in it of these tags, all without any, in the order of the page."""
        found: list[Element] = []
        for one in self.inside:
            found += [one] if not tags or one.tag in tags else []
            found += one.all(*tags)
        return found


class _Reader(HTMLParser):
    """Reads strictly: each element is closed where it should be."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.root = self._open = Element("", {}, None)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), self.get_starttag_text()
        one = Element(tag, dict(attrs), self._open)
        self._open.inside.append(one)
        assert self._open.tag in _PARENTS.get(tag, {self._open.tag}), (tag, self._open.tag)
        if tag in _IN_NO_OTHER:
            assert one.around(tag) is None, f"a {tag} in a {tag}"
        if tag in _IN_NO_P:
            assert one.around("p") is None, f"a {tag} in a p"
        if tag not in _VOID and (tag, self._open.tag) != ("option", "datalist"):
            self._open = one

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self._open.tag, f"</{tag}> in <{self._open.tag}>, line {self.getpos()[0]}"
        assert self._open.above is not None
        self._open = self._open.above

    def handle_data(self, data: str) -> None:
        if self._open.tag in ("script", "style"):
            self._open.texts.append(data)
        else:
            assert not re.search("[<>&]", data), data
            self._add(data)

    def handle_entityref(self, name: str) -> None:
        assert name in ("amp", "gt", "lt"), name
        self._add(unescape(f"&{name};"))

    def handle_charref(self, name: str) -> None:
        self._add(unescape(f"&#{name};"))

    def _add(self, text: str) -> None:
        one: Element | None = self._open
        while one is not None:
            one.texts.append(text)
            one = one.above

    def end(self) -> Element:
        self.close()
        assert self._open is self.root, f"<{self._open.tag}> is not closed"
        return self.root


def judge_page(text: str, path: str, policy: str) -> None:
    """Judge a page that was asked for at `path`, and the policy that it came with."""
    assert text.startswith("<!doctype html>\n"), text[:40]
    page = judge_part(text.removeprefix("<!doctype html>"))
    [title], [first, *rest] = page.all("title"), page.all("h1", "h2", "h3", "h4")
    assert title.text
    assert (first.tag, {one.tag for one in rest} <= {"h2"}) == ("h1", True)
    assert len(page.all("main")) == len(page.all("body")) == 1
    styles, scripts = ([one.texts[0] for one in page.all(tag)] for tag in ("style", "script"))
    _judge_policy(policy, styles, scripts)
    ruled = set(re.findall(r"\.([a-zA-Z][\w-]*)", re.sub(r"\{[^{}]*\}", "", styles[0])))
    for one in page.all():
        if one.get("class").startswith("pill delivery-"):
            assert one.get("class")[14:].replace("_", " ") == one.text
        unruled = set(one.get("class").split()) - ruled - _HOOKS
        assert not unruled, f"{unruled} are no classes of the stylesheet"
    _judge_references(page)
    if path.startswith("/outbox") and (places := page.all("nav")):
        assert title.text.endswith(" - Outbox")
        here = [one for one in places[0].all("a") if one.given.get("aria-current") == "page"]
        [best] = sorted(
            (one for one in places[0].all("a") if path.startswith(one.get("href"))),
            key=lambda one: len(one.get("href")),
        )[-1:]
        if not re.fullmatch("/outbox/(replay|discard)", path):
            assert here == [best], f"{path} is not {[one.text for one in here]}"
        else:
            assert [one.text for one in here] == ["Events"]


def judge_part(text: str) -> Element:
    """Judge a piece of a page; returns what it consists of."""
    reader = _Reader()
    reader.feed(text)
    page = reader.end()
    assert not (found := re.search(_NOT_SHOWN, page.text)), page.text[found.start() - 40 :][:80]
    judge_counts(page.text)
    for one in page.all():
        _judge_element(one)
    for table in page.all("table"):
        _judge_table(table)
    return page


def _judge_policy(policy: str, styles: list[str], scripts: list[str]) -> None:
    digests = [
        f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'"
        for one in (*styles, *scripts)
    ]
    digest = "'sha256-[A-Za-z0-9+/]{43}='"
    allowed = "default-src 'none'; script-src (.*); style-src (.*); connect-src 'self'; "
    allowed += "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    found = re.fullmatch(allowed, policy)
    assert found, policy
    assert found[1] == found[2]
    assert re.fullmatch(f"{digest}( {digest})?", found[1])
    assert set(digests) <= set(found[1].split()), "a script or style that the policy forbids"


def _judge_references(page: Element) -> None:
    ids = Counter(one.get("id") for one in page.all() if "id" in one.given)
    assert set(ids.values()) <= {1}, ids
    for one in page.all():
        own = re.search(r"^#(.+)|^/[^#]*#(.+)", one.get("href"))
        named = [*filter(None, own.groups())] if own else []
        for name in ("aria-labelledby", "aria-describedby", "for", "list"):
            named += one.get(name).split()
        assert set(named) <= set(ids), f"{one.tag} {one.given} names what is not there"
    labelled = {one.get("for") for one in page.all("label")}
    for one in page.all("input", "select", "textarea"):
        if one.get("type") != "hidden":
            assert one.get("aria-label") or one.get("id") in labelled, one.given
    for tag in ("nav", "section", "form"):
        names = [one.get("aria-label") for one in page.all(tag) if "aria-label" in one.given]
        assert len(set(names)) == len(names), names


def _judge_element(one: Element) -> None:
    tag = one.tag
    label = one.get("aria-label")
    assert label.strip() == label
    assert not re.search(_NOT_SHOWN, label), label
    if "aria-label" in one.given or one.get("role") in ("img", "region", "search"):
        assert label, (tag, one.given)
    if tag in ("a", "dd", "dt", "h1", "h2", "label", "li", "option", "summary", "th", "time"):
        assert one.text or tag == "option", f"an empty {tag}"
    if tag == "button":
        assert one.text or one.get("id") == "zone"
    if tag == "section":
        assert one.get("aria-labelledby")
    if tag == "nav":
        assert label
    if tag == "time":
        shown = one.get("datetime").replace("T", " ").replace("Z", " UTC")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", shown)
        assert one.text == shown
    if tag == "a" and one.get("href").startswith("/"):
        _judge_address(one.get("href"), by_post=False)
    if tag == "form" and "id" not in one.given:
        _judge_form(one)


def _judge_form(form: Element) -> None:
    by_post = form.get("method") == "post"
    assert by_post == (form.get("role") != "search"), form.given
    buttons = [one for one in form.all("button") if one.get("type") != "button"]
    places = {one.get("formaction") or form.get("action") for one in buttons}
    names = {one.get("name") for one in form.all("input", "button") if "name" in one.given}
    for place in places or ({form.get("action")} - {""}):
        _judge_address(place, names, by_post=by_post)
    hidden = [one for one in form.all("input") if one.get("type") == "hidden"]
    once = Counter(one.get("name") for one in hidden if one.get("name") != "event")
    assert set(once.values()) <= {1}, once
    assert all(one.get("value") or one.get("name") in ("state", "filter") for one in hidden), once


def _judge_address(address: str, fields: set[str] | None = None, *, by_post: bool) -> None:
    parts = urlsplit(address)
    place = re.sub("^(/outbox/events)/[^/]+", r"\1/ID", parts.path)
    assert place in _PLACES, f"{address} is nowhere"
    assert by_post == (place.rsplit("/")[-1] in _BY_POST) or place == "/auth/dev-login", address
    given = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    named = {*given, *(fields or ())}
    posted = {"event"} if place == "/outbox/events/ID" else set[str]()
    assert named <= _PLACES[place] | posted, (address, named - _PLACES[place])
    assert not {"None", "undefined"} & {*given.values()}, address


def _judge_table(table: Element) -> None:
    [head], [body] = table.all("thead"), table.all("tbody")
    [columns] = head.all("tr")
    names = [one.text for one in columns.inside]
    assert all(one.get("scope") == "col" for one in columns.inside if one.tag == "th")
    rows = body.all("tr")
    assert rows, "a table without rows"
    for row in rows:
        wide = sum(int(one.get("colspan") or 1) for one in row.inside)
        assert wide == len(names), f"{wide} cells below {names}"
        for name, cell in zip(names, row.inside, strict=False):
            assert cell.get("data-label") in ("", name), f"{cell.given} below {name}"
            assert cell.tag == "td" or cell.get("scope") == "row"
