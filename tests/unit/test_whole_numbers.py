"""A number in the query of a request."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from yarl import URL

from service.errors import InvalidFieldError
from service.web.events.events import whole_number


def number(text: str | None, least: int = 1, most: int = 500) -> int | None:
    query = {} if text is None else {"limit": text}
    request = make_mocked_request("GET", str(URL("/").with_query(query)))
    return whole_number(request, "limit", least, most)


def test_a_number_within_its_bounds_is_taken() -> None:
    assert [number(text) for text in ("1", "17", "500", "007", None)] == [1, 17, 500, 7, None]
    assert number("0", least=0) == 0


@pytest.mark.parametrize(
    "text", ["", "0", "501", "-1", "+1", "1.0", "x", " 1", "1_0", "\u0661", "\u00b2", "0001"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidFieldError, match="limit is a whole number from 1 to 500"):
        number(text)
