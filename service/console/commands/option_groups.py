"""Options that several commands share: one argument of the command, one option for each field."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose arguments of a dataclass's type are given as an option for each field."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: one.annotation
        for name, one in signature.parameters.items()
        if dataclasses.is_dataclass(one.annotation)
    }

    @functools.wraps(command)
    def grouped(**given: Any) -> None:
        made = {
            name: kind(**{field: given.pop(field) for field in _fields(kind)})
            for name, kind in groups.items()
        }
        command(**given, **made)

    parameters = list(_expanded(signature))
    grouped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return grouped


def _expanded(signature: inspect.Signature) -> Iterator[inspect.Parameter]:
    for one in signature.parameters.values():
        if dataclasses.is_dataclass(one.annotation):
            for field in _fields(one.annotation).values():
                yield field.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        else:
            yield one


def _fields(kind: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind, eval_str=True).parameters
