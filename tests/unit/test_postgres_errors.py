from __future__ import annotations

from collections.abc import Iterator

import psycopg
import psycopg_pool
import pytest

from service.errors import ServiceError
from service.outbox.postgres.pool import _REPEAT, _errors_mapped, _LostError, connection_string


def every_error(of: type[Exception]) -> Iterator[type[Exception]]:
    for each in of.__subclasses__():
        yield each
        yield from every_error(each)


@pytest.mark.parametrize(
    "kind", [*sorted(set(every_error(psycopg.Error)), key=str), psycopg_pool.PoolTimeout]
)
@pytest.mark.parametrize("broken", [False, True])
def test_every_error_of_the_driver_is_turned_into_ours(
    kind: type[Exception], *, broken: bool
) -> None:
    with (
        pytest.raises((ServiceError, _LostError, *_REPEAT)),
        _errors_mapped(lambda: broken),
    ):
        raise kind("words")


def test_an_address_keeps_what_it_sets_itself() -> None:
    text = connection_string("postgresql://ada:pw@db.example:6432/outbox?connect_timeout=9")
    assert "connect_timeout=9" in text
    assert "tcp_user_timeout=6000" in text
    assert "host=db.example" in text
