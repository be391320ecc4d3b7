"""What must be true of each answer of a command, whatever it says."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tests.support.words import judge_counts

_ROW = (
    "acceptedAt attempts deadAt deliveredAt detail dueInSeconds environment firstSentAt history id "
    "inngestId isolated leaseInSeconds name payloadBytes reason sends state userId wireId"
)
_STATS = (
    "confirmation databaseBytes dead delivered delivering delivery destination etaSeconds "
    "oldestDueSeconds oldestPendingSeconds pending rate sent serving walBytes"
)
# The fields of what each command prints as JSON, each of them always, and those that come at times.
_FIELDS = {
    "audit": "act action actor at detail ids",
    "backup": "bytes file",
    "check": "code message stats status",
    "discard": "action done ids",
    "explain": "explanation known name",
    "journal": "restored starts",
    "list": _ROW,
    "pause": "paused pausedBy reason",
    "purge": "action done hasMore rows",
    "recover": "lost rows withoutState",
    "replay": "action done ids",
    "resume": "paused pausedBy reason",
    "show": f"{_ROW} destination explanation idUsedBy runs",
    "sign-out": "hasEvents issuers user",
    "stats": f"{_STATS} deadGroups names outbox",
    "tail": f"{_ROW} at what",
    "verify": "checked held missing payloadRemoved reason resent runs unknown",
}
_AT_TIMES = {"show": {"payload"}, "stats": {"journal", "owners"}}
_OTHER_CODES = {"check": {3}, "verify": {3}}
_OTHER_WORDS = {"check", "erase", "journal", "recover", "verify"}  # where 1 has its own meaning
_LOGGED = r"[\d-]{10} [\d:]{8} \[(warning|error) .*\n"  # by the outbox that a command opens here


def judge_outbox(arguments: Sequence[str], code: int | None, out: str, err: str) -> None:
    """Judge what `outbox` with these arguments ended with and printed."""
    command = arguments[0]
    said = (arguments, code, out, err)
    assert code in {0, 1, 2} | _OTHER_CODES.get(command, set[int]()), said
    judge_words(out)
    judge_words(err)
    unforeseen = command == "check" and "unforeseen" in out
    assert unforeseen or "Traceback" not in out + err, said
    assert not re.search("^(outbox: |Usage: )", out, re.MULTILINE), said
    if code == 2 and command != "check":
        assert re.sub(_LOGGED, "", out) == "", said
    if code and (code == 2 or command not in _OTHER_WORDS) and command != "check":
        assert err.startswith(("outbox: ", f"Usage: outbox {command} ")), said
        for line in err.splitlines():
            assert not line.startswith("outbox: ") or line.endswith((".", ":", ")")), said
    if "--json" in arguments:
        told = re.sub(_LOGGED, "", out)
        lines = told.splitlines() if command == "tail" else [told] * bool(told)
        for one in map(json.loads, lines):
            _judge_fields(command, one if isinstance(one, list) else [one])


def judge_words(text: str) -> None:
    """Judge what a command printed on one stream: whole lines that steer no terminal."""
    assert text == "" or text.endswith("\n"), text
    for line in text.split("\n"):
        assert line.isprintable(), line
        assert line == line.rstrip(), line
    if not text.startswith(("[", "{")):
        judge_counts(text)


def judge_line(line: str) -> None:
    """Judge a line that a process printed: one of its log has the fields of each record."""
    assert line.isprintable(), line
    told = record_in(line)
    if told is None:
        return
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{3}Z", told["timestamp"]), line
    assert told["level"] in ("debug", "info", "warning", "error"), line
    assert told["event"], line


def record_in(line: str) -> dict[str, Any] | None:
    """The log record that a line is; None of any other, and where long writes have mixed."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _judge_fields(command: str, told: list[Any]) -> None:
    known = set(_FIELDS[command].split()) if command in _FIELDS else None
    for one in told:
        assert known is None or set(one) - _AT_TIMES.get(command, set[str]()) == known, set(one)
        _judge_values(one)


def _judge_values(value: Any, name: str = "") -> None:
    """A name says what its value is."""
    if isinstance(value, dict):
        if "id" in value and "payload" in value:
            value = {key: one for key, one in value.items() if key != "payload"}
        for key, one in value.items():
            _judge_values(one, key)
    elif isinstance(value, list):
        for one in value:
            _judge_values(one, name.removesuffix("s"))
    elif name == "at" or name.endswith("At"):
        assert value is None or value > 1_600_000_000_000, (name, value)
    elif name.endswith("Seconds") and name != "leaseInSeconds":
        assert value is None or value >= 0, (name, value)
    elif name in ("id", "act", "name", "owner"):
        assert isinstance(value, str), (name, value)
    elif name in ("attempts", "bytes", "lost", "payloadBytes", "rows", "sends", "withoutState"):
        assert isinstance(value, int), (name, value)
        assert value >= 0, (name, value)
