"""The methods of a port as messages: found by reading the port, so that both sides agree.

A new method of a port needs no code here. Its arguments and its result must be what msgspec
encodes: structs, plain values, and containers of them.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

Encoded = bytes | memoryview
Invoke = Callable[..., Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a port. `parameters` are its names in order, each with its default."""

    name: str
    parameters: tuple[tuple[str, object], ...]
    keyword_only_from: int
    decode_arguments: Callable[[Encoded], tuple[Any, ...]]
    decode_result: Callable[[Encoded], object]

    def positional(self, given: tuple[object, ...], named: dict[str, object]) -> list[object]:
        """The arguments of a call in the order of the parameters."""
        return [
            *given,
            *(named.get(name, default) for name, default in self.parameters[len(given) :]),
        ]

    def invoke(self, function: Invoke, arguments: tuple[object, ...]) -> Awaitable[object]:
        """Call `function` with decoded arguments, those named that a port names."""
        at = self.keyword_only_from
        names = (name for name, _ in self.parameters[at:])
        named = dict(zip(names, arguments[at:], strict=True))
        return function(*arguments[:at], **named)


def methods_of(port: type, called: str | None = None) -> dict[str, Method]:
    """The asynchronous methods of a port (a Protocol), by name.

    In calls the port is `called` so, by default by its own name.

    >>> class Port:
    ...     async def add(self, one: int, *, two: int = 2) -> int: ...
    >>> add = methods_of(Port)["add"]
    >>> add.positional((1,), {}), add.decode_arguments(msgspec.msgpack.encode([1, 2]))
    ([1, 2], (1, 2))
    """
    return {
        name: _method(f"{called or port.__name__}.{name}", function)
        for name, function in inspect.getmembers(port, inspect.iscoroutinefunction)
    }


def _method(name: str, function: Callable[..., object]) -> Method:
    hints = typing.get_type_hints(function)
    result = hints.pop("return")
    parameters = list(inspect.signature(function).parameters.values())[1:]
    named = [one.kind is inspect.Parameter.KEYWORD_ONLY for one in parameters]
    kinds = types.GenericAlias(tuple, tuple(hints[one.name] for one in parameters))
    return Method(
        name,
        tuple((one.name, one.default) for one in parameters),
        named.index(True) if True in named else len(named),
        msgspec.msgpack.Decoder(kinds).decode,
        msgspec.msgpack.Decoder(result).decode,
    )
