"""Small changes of a function in PL/pgSQL, besides those of the SQL in it: see `sql_changes`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.support.mutation.sql_changes import changed

_SWAPS = (
    (r" = ", " <> "),
    (r" <> ", " = "),
    (r" !~ ", " ~ "),
    (r" IS NULL\b", " IS NOT NULL"),
    (r"\btrue\b", "false"),
    (r"\bfalse\b", "true"),
    (r"\s+USING ERRCODE = '\w+'", ""),
)
_CONDITION = re.compile(r"\b(?:IF|ELSIF) (?P<condition>.*?)\s+THEN\b", re.DOTALL)
_STATEMENT = re.compile(
    r"(?<=[;NEP]\n) *(?P<statement>"
    r"(?:PERFORM|UPDATE|DELETE|INSERT|SELECT|WITH|EXECUTE|LOCK|RETURN|RAISE|\w+ :=) [^;]+);"
)
_CHOICE = re.compile(r"\b(?:coalesce|nullif)\(")


def function_changes(body: str) -> Iterator[tuple[str, str]]:
    """Each change of a body without comments, and the body with it.

    A statement begins a line, behind one that ends in `;`, BEGIN, THEN, ELSE or LOOP.

    >>> body = "BEGIN\\n    IF a = 1 THEN\\n        RETURN b;\\n    END IF;\\nEND"
    >>> for change, _ in function_changes(body):
    ...     print(change)
    = → <> before 1 THEN RETURN b; END IF;
    TRUE instead of a = 1
    FALSE instead of a = 1
    without RETURN b
    """
    for pattern, instead in _SWAPS:
        for found in re.finditer(pattern, body):
            yield changed(body, found.start(), found.end(), instead)
    for found in _CONDITION.finditer(body):
        start, end = found.span("condition")
        words = " ".join(body[start:end].split())
        for instead in ("TRUE", "FALSE"):
            yield f"{instead} instead of {words}", body[:start] + instead + body[end:]
    for found in _STATEMENT.finditer(body):
        start, end = found.span("statement")
        yield f"without {' '.join(body[start:end].split())}", f"{body[:start]}NULL{body[end:]}"
    for found in _CHOICE.finditer(body):
        first, end = _arguments(body, found.end())
        yield changed(body, found.start(), end, first)


def _arguments(body: str, start: int) -> tuple[str, int]:
    """The first argument of a call whose bracket is open, and where the call ends."""
    depth, first = 0, 0
    for at in range(start, len(body)):
        if body[at] == "," and not depth and not first:
            first = at
        depth += {"(": 1, ")": -1}.get(body[at], 0)
        if depth < 0:
            return body[start:first], at + 1
    raise ValueError(body)
