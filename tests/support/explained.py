"""The plan of a statement on PostgreSQL, and the pages that it touches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg

from inngest_outbox.outbox.postgres.database.connection import SET_UP

_PARAMETER = re.compile(r"%\((\w+)\)[sb]")


def explained(
    connection: psycopg.Connection[Any],
    statement: str,
    given: Mapping[str, Any],
    how: str = "ANALYZE, BUFFERS",
) -> dict[str, Any]:
    """Its plan with these values, as an operator's statement is planned."""
    options = ", ".join(filter(None, (how, "FORMAT JSON")))
    cursor = psycopg.ClientCursor(connection)
    cursor.execute(f"EXPLAIN ({options}) {statement}", given)
    [(plans,)] = cursor.fetchall()
    return dict(plans[0]["Plan"])


class PlannedOnce:
    """Statements that a session plans once, whatever their values, as the service's session does.

    A plan lives until the server has new figures of a table.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._names: dict[str, tuple[str, list[str]]] = {}
        connection.execute(SET_UP, {"backend": connection.info.backend_pid})
        connection.commit()

    def explained(
        self, statement: str, given: Mapping[str, Any], how: str = "ANALYZE, BUFFERS"
    ) -> dict[str, Any]:
        name, parameters = self._prepared(statement)
        values = ", ".join(f"%({one})s" for one in parameters)
        call = f"EXECUTE {name} ({values})" if values else f"EXECUTE {name}"
        return explained(self._connection, call, given, how)

    def _prepared(self, statement: str) -> tuple[str, list[str]]:
        if statement not in self._names:
            parameters = list(dict.fromkeys(_PARAMETER.findall(statement)))
            numbered = _PARAMETER.sub(
                lambda found: f"${parameters.index(found[1]) + 1}", statement
            ).replace("%%", "%")
            name = f"statement_{len(self._names)}"
            self._connection.execute(f"PREPARE {name} AS {numbered}".encode())
            self._names[statement] = name, parameters
        return self._names[statement]


def pages(plan: Mapping[str, Any]) -> int:
    """The pages that an explained statement touched; those of its writes may count twice."""
    writes = [one for one in plan.get("Plans", []) if one["Node Type"] == "ModifyTable"]
    return sum(int(one["Shared Hit Blocks"] + one["Shared Read Blocks"]) for one in (plan, *writes))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The plan's steps."""
    yield plan
    for one in plan.get("Plans", []):
        yield from nodes(one)
