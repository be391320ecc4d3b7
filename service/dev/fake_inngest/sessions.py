"""The Event API's rules for the sessions in an event's meta."""

from __future__ import annotations

MAX_SESSIONS = 5
_MAX_KEY_BYTES = 128
_MAX_ID_BYTES = 512


def check_meta(meta: object) -> None:
    """Raise ValueError for a meta that the API refuses."""
    if meta is None:
        return
    if not isinstance(meta, dict):
        raise ValueError("Event meta must be an object")  # noqa: TRY004
    layers = {name.casefold(): layer for name, layer in meta.items()}
    own = _layer(layers.get("sessions"))
    inherited = _layer(layers.get("propagated_sessions"))
    if None in inherited.values():
        raise ValueError("A propagated session is null")
    given = {key: value for key, value in own.items() if value is not None}
    if len(given) > MAX_SESSIONS:
        raise ValueError("Event sessions can include at most 5 entries")
    for key, value in [*given.items(), *inherited.items()]:
        _check(key, value)


def _layer(found: object) -> dict[str, object]:
    if not isinstance(found, dict | None):
        raise ValueError("Event sessions must be an object")  # noqa: TRY004
    return found or {}


def _check(key: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("A session must be a string or a number")  # noqa: TRY004
    sizes = (len(key.encode()), len(str(value).encode()))
    if not (0 < sizes[0] <= _MAX_KEY_BYTES and 0 < sizes[1] <= _MAX_ID_BYTES):
        raise ValueError("A session has an empty or a long key or id")
