"""The mutants of a module: each is its syntax tree with one small change.

A mutant is made in place and put back, so that one tree serves them all. Docstrings, annotations
and the words of errors are left as they are, and so are the figures of policies: each is a choice,
and its tests pass their own.
"""

from __future__ import annotations

import ast
import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

from tests.support.mutation.changes import (
    Change,
    condition_changes,
    expression_changes,
    statement_changes,
)

_MOST_WORDS = 120


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: `name` says which, and is the same while the code around it is."""

    name: str
    line: int
    tree: ast.Module
    parent: ast.AST
    field: str
    index: int | None
    instead: ast.AST

    def compiled(self, path: str) -> CodeType:
        """The module with the change."""
        before = getattr(self.parent, self.field)
        new = ast.fix_missing_locations(ast.copy_location(self.instead, self._node(before)))
        with self._in_place(before, new):
            return compile(self.tree, path, "exec", dont_inherit=True)

    def _node(self, before: object) -> ast.AST:
        node = before if self.index is None else before[self.index]  # type: ignore[index]
        assert isinstance(node, ast.AST)
        return node

    @contextlib.contextmanager
    def _in_place(self, before: object, new: ast.AST) -> Iterator[None]:
        if self.index is None:
            setattr(self.parent, self.field, new)
        else:
            assert isinstance(before, list)
            setattr(
                self.parent, self.field, [*before[: self.index], new, *before[self.index + 1 :]]
            )
        try:
            yield
        finally:
            setattr(self.parent, self.field, before)


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    names = Counter[str]()
    found = []
    for place, parent, field, index, node in _sites(tree, ""):
        for change, instead in _changes(node, field):
            name = called(names, place, change)
            found.append(Mutant(name, node.lineno, tree, parent, field, index, instead))
    return sorted(found, key=lambda mutant: mutant.line)


def _changes(node: ast.stmt | ast.expr, field: str) -> Iterator[Change]:
    if isinstance(node, ast.stmt):
        yield from statement_changes(node)
        return
    if field in {"test", "ifs"}:
        yield from condition_changes(node)
    yield from expression_changes(node)


_Site = tuple[str, ast.AST, str, int | None, ast.stmt | ast.expr]
_FIGURES = ("Policy", "Timings", "Limits")
_LEFT_ALONE = {"annotation", "returns", "decorator_list", "bases", "exc", "msg", "type"}


def _sites(node: ast.AST, place: str) -> Iterator[_Site]:
    """The statements and expressions that may change, with the name of the place around each."""
    for field, value in ast.iter_fields(node):
        if field in _LEFT_ALONE:
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or _is_left_alone(node, child):
                continue
            inside = _inside(place, child)
            if isinstance(child, ast.stmt | ast.expr):
                yield inside, node, field, index if isinstance(value, list) else None, child
            yield from _sites(child, inside)


def _is_left_alone(parent: ast.AST, node: ast.AST) -> bool:
    """Docstrings, imports, assertions, types, options of classes and zip, a policy's figures."""
    match parent, node:
        case ast.ClassDef(name), ast.AnnAssign():
            return name.endswith(_FIGURES)
        case ast.ClassDef(), ast.keyword():
            return True
        case _, ast.Expr(ast.Constant()) | ast.keyword("strict"):
            return True
        case ast.Assign(), ast.Call(ast.Name("TypeVar" | "ParamSpec")):
            return True
    return isinstance(node, ast.Import | ast.ImportFrom | ast.Assert)


def _inside(place: str, node: ast.AST) -> str:
    name = getattr(node, "name", None)
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and not place:
        name = node.targets[0].id
    if not isinstance(name, str) or isinstance(node, ast.ExceptHandler | ast.alias):
        return place
    return f"{place}.{name}" if place else name


def called(names: Counter[str], place: str, change: str) -> str:
    """A change's name in a line of bounded length; the second of a name is `#2`."""
    line = " ".join(change.split())
    short = line if len(line) <= _MOST_WORDS else f"{line[: _MOST_WORDS - 1]}…"
    name = f"{place}: {short}"
    names[name] += 1
    return f"{name} #{names[name]}" if names[name] > 1 else name
