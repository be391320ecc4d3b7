"""The filter of the event list as a form: its fields and their meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode

from inngest_outbox.errors import InvalidFieldError
from inngest_outbox.outbox.model import Filter, State

PATH = "/outbox/events"
_MAX_QUERY_CHARS = 2_000  # in an address that every proxy and browser takes
_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class FilterForm:
    """The fields as given; an empty one filters nothing. Times are UTC, to the minute.

    User, name and reason match where the text contains them; in quotes, where it is the same.
    """

    state: str = ""
    id: str = ""
    user: str = ""
    name: str = ""
    reason: str = ""
    since: str = ""
    until: str = ""
    payload: str = ""

    @classmethod
    def read(cls, given: Mapping[str, str]) -> FilterForm:
        """The fields of a query or a posted form. Raises InvalidFieldError.

        A page's form has them as a query in `filter`: of a field's value a browser changes the ends
        of lines.
        """
        given = {**given, **dict(parse_qsl(given.get("filter", "")))}
        form = cls(**{name: given.get(name, "").strip() for name in cls.__slots__})
        if form.state and form.state not in set(State):
            raise InvalidFieldError("There is no such state.")
        form.filter(limit=1)
        return form

    def filter(self, *, limit: int, before_seq: int | None = None) -> Filter:
        """The filter, at most `limit` rows below `before_seq`. Raises InvalidFieldError."""
        until = _moment(self.until)
        return Filter(
            state=State(self.state) if self.state else None,
            id_prefix=self.id or None,
            user_id=_exact(self.user),
            name=_exact(self.name),
            reason=_exact(self.reason),
            user_part=_part(self.user),
            name_part=_part(self.name),
            reason_part=_part(self.reason),
            payload_part=self.payload or None,
            since_ms=_moment(self.since),
            until_ms=None if until is None else until + _MINUTE_MS,
            before_seq=before_seq,
            limit=limit,
        )

    @property
    def fields(self) -> dict[str, str]:
        """The fields that were filled in."""
        return {name: value for name, value in asdict(self).items() if value}

    @property
    def is_filtering(self) -> bool:
        """True when more than the state was filled in."""
        return bool(self.fields.keys() - {"state"})

    def query(self, **changes: object) -> str:
        """The query of an address with these fields and the given changes, without empty ones."""
        given = {**self.fields, **changes}
        return urlencode({name: value for name, value in given.items() if value})

    def address(self, **changes: object) -> str:
        """The list with these fields and the given changes; of a long query only the state."""
        query = self.query(**changes)
        if len(query) > _MAX_QUERY_CHARS:
            query = FilterForm(state=self.state).query(**changes)
        return f"{PATH}?{query}"


def read_number(given: Mapping[str, str], name: str) -> int | None:
    """A whole number from a query or a form, None without one. Raises InvalidFieldError."""
    text = given.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < len(str(2**63))):
        raise InvalidFieldError(f"{name} is not a whole number.")
    return int(text)


def _is_quoted(text: str) -> bool:
    return len(text) > len('""') and text[0] == text[-1] == '"'


def _exact(text: str) -> str | None:
    return text[1:-1] if _is_quoted(text) else None


def _part(text: str) -> str | None:
    return None if _is_quoted(text) else text or None


def _moment(text: str) -> int | None:
    if not text:
        return None
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError as error:
        raise InvalidFieldError("A time of the filter is not a date and time.") from error
