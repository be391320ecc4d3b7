"""EVENT_TYPES_FILE: the event types that the service takes.

The packaged types are always there. An entry of the file whose path is that of a packaged type
changes it: the fields that the entry has replace the packaged ones.
"""

from __future__ import annotations

import importlib.resources
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from inngest_outbox.errors import ConfigurationError
from inngest_outbox.event_types.declaration import Declaration, declare
from inngest_outbox.event_types.event_type import operation_id
from inngest_outbox.event_types.plain_values import read_plain_values

DOCUMENTS_PATH = "/api/route"
_PACKAGED = importlib.resources.files("inngest_outbox.event_types") / "packaged.yaml"
_FORM = "write an object with the one key types, which is a list of event types"


def load_event_types(path: str | None) -> tuple[Declaration, ...]:
    """The enabled types of the package and of the file at `path`; None: without a file.

    Raises ConfigurationError with every fault of the file. Each fault says which entry is meant.
    """
    with importlib.resources.as_file(_PACKAGED) as packaged_file:
        packaged = {entry["path"]: entry for entry in _entries(packaged_file)}
    declared, faults = _declare(packaged, _given(path))
    of_file = {one.path for one in declared.values()}
    kept = {
        f"the packaged {place}": declare(entry)
        for place, entry in packaged.items()
        if place not in of_file
    }
    types = {label: one for label, one in (kept | declared).items() if one.enabled}
    faults += _repeats(types)
    if faults:
        raise ConfigurationError([f"EVENT_TYPES_FILE: {path}: {fault}" for fault in faults])
    return tuple(types.values())


def check_encryption(types: Iterable[Declaration], *, has_key: bool) -> None:
    """Raise ConfigurationError where a type asks for encryption and there is no key."""
    names = [one.name for one in types if one.encrypt]
    if names and not has_key:
        raise ConfigurationError([f"OUTBOX_ENCRYPTION_KEY: required by {', '.join(names)}"])


def documents_event_name(types: Iterable[Declaration]) -> str:
    """The name of the event of POST /api/route. Raises ConfigurationError where it is off."""
    for one in types:
        if one.path == DOCUMENTS_PATH and one.document:
            return one.name
    raise ConfigurationError([f"EVENT_TYPES_FILE: the worker needs a document at {DOCUMENTS_PATH}"])


def _declare(
    packaged: Mapping[str, Any], entries: list[Any]
) -> tuple[dict[str, Declaration], list[str]]:
    """The event types by their labels, and the faults of those that are none."""
    types: dict[str, Declaration] = {}
    faults: list[str] = []
    for number, entry in enumerate(entries, 1):
        try:
            one = declare(_overlaid(packaged, entry))
        except ConfigurationError as error:
            faults += [f"{_label(number, entry)}: {fault}" for fault in error.faults]
        else:
            types[_label(number, entry)] = one
    return types, faults


def _overlaid(packaged: Mapping[str, Any], entry: Any) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        return entry
    return {**packaged.get(entry["path"], {}), **entry}


def _label(number: int, entry: Any) -> str:
    name = entry.get("name", entry.get("path")) if isinstance(entry, dict) else None
    return f"entry {number} ({name})" if name else f"entry {number}"


def _repeats(types: Mapping[str, Declaration]) -> Iterator[str]:
    """A sentence for each two types with one path, one name, or one name in the description."""
    for (first, one), (second, other) in itertools.combinations(types.items(), 2):
        both = f"{first} and {second}"
        if one.path == other.path:
            yield f"{both} have the path {one.path}; change one of them"
        if one.name == other.name:
            yield f"{both} have the name {one.name}; change one of them"
        elif operation_id(one.name) == operation_id(other.name):
            yield f"{both} have names with the same letters and digits; change one of them"


def _given(path: str | None) -> list[Any]:
    if path is None:
        return []
    try:
        return _entries(Path(path))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError([f"EVENT_TYPES_FILE: {path}: {reason}"]) from None


def _entries(path: Path) -> list[Any]:
    found = read_plain_values(path)
    if not isinstance(found, dict) or list(found) != ["types"]:
        raise ValueError(_FORM)
    entries = found["types"]
    if not isinstance(entries, list):
        raise ValueError(_FORM)  # noqa: TRY004  (one kind of fault for the caller)
    return entries
