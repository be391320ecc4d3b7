"""Small changes of Python code: each gives a sentence and the node that stands instead."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.support.mutation.sql_changes import sql_changes

Change = tuple[str, ast.AST]

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}


def statement_changes(node: ast.stmt) -> Iterator[Change]:
    """A statement dropped, or its branches swapped."""
    if isinstance(node, ast.With | ast.AsyncWith):
        if all(item.optional_vars is None for item in node.items):
            head = ", ".join(ast.unparse(item.context_expr) for item in node.items)
            yield f"without with {head}", _block(node.body)
    elif isinstance(node, ast.Try):
        if node.finalbody:
            unguarded = ast.Try(node.body, node.handlers, node.orelse, [])
            yield "without finally", unguarded if node.handlers else _block(node.body)
        for index, handler in enumerate(node.handlers):
            others = [*node.handlers[:index], *node.handlers[index + 1 :]]
            body, orelse = (node.body, node.orelse) if others else ([*node.body, *node.orelse], [])
            rest = ast.Try(body, others, orelse, node.finalbody)
            left = rest if others or node.finalbody else _block(body)
            yield f"without except {ast.unparse(handler.type) if handler.type else ''}", left
    elif isinstance(node, ast.Return) and node.value is not None:
        if not isinstance(node.value, ast.Constant) or node.value.value is not None:
            yield f"{ast.unparse(node)} → return None", ast.Return(ast.Constant(None))
    elif _may_be_dropped(node):
        yield f"without {ast.unparse(node)}", ast.Pass()


def expression_changes(node: ast.expr) -> Iterator[Change]:
    """An expression that gives something else."""
    for instead in _instead_of(node):
        yield f"{ast.unparse(node)} → {ast.unparse(instead)}", instead
    if isinstance(node, ast.Call):
        for index, keyword in enumerate(node.keywords):
            rest = [*node.keywords[:index], *node.keywords[index + 1 :]]
            if keyword.arg != "strict" and not _names_a_task(node, keyword):
                sentence = f"{ast.unparse(node.func)}(…) without {ast.unparse(keyword)}"
                yield sentence, ast.Call(node.func, node.args, rest)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        for change, text in sql_changes(node.value):
            yield change, ast.Constant(text)


def _instead_of(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare():
            yield from _other_comparisons(node)
        case ast.BoolOp():
            yield from _other_conditions(node)
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.UnaryOp(ast.USub(), ast.Constant()):
            yield node.operand
        case ast.BinOp(left, operator, right) if type(operator) in _ARITHMETIC:
            yield ast.BinOp(left, _ARITHMETIC[type(operator)](), right)
        case ast.Name(name, ast.Load()) if name in _CALLS:
            yield ast.Name(_CALLS[name], ast.Load())
        case ast.Subscript(value, ast.Slice()) if isinstance(node.ctx, ast.Load):
            yield value
        case ast.Constant(bool() | int() | float()):
            yield from _other_figures(node.value)


def _other_comparisons(node: ast.Compare) -> Iterator[ast.expr]:
    for index, operator in enumerate(node.ops):
        for other in _COMPARISONS[type(operator)]:
            swapped = [*node.ops[:index], other(), *node.ops[index + 1 :]]
            yield ast.Compare(node.left, swapped, node.comparators)


def _other_conditions(node: ast.BoolOp) -> Iterator[ast.expr]:
    yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
    for index in range(len(node.values)):
        rest = [*node.values[:index], *node.values[index + 1 :]]
        yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)


def _other_figures(value: float) -> Iterator[ast.expr]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
        return
    yield ast.Constant(value + 1)
    if value:
        yield ast.Constant(value - 1)


def condition_changes(node: ast.expr) -> Iterator[Change]:
    """The contrary of a condition that is no comparison."""
    if not isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant):
        yield f"not {ast.unparse(node)}", ast.UnaryOp(ast.Not(), node)


def _names_a_task(call: ast.Call, keyword: ast.keyword) -> bool:
    return keyword.arg == "name" and ast.unparse(call.func).endswith("create_task")


def _block(body: list[ast.stmt]) -> ast.stmt:
    return ast.If(ast.Constant(1), body, [])


def _may_be_dropped(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign | ast.AnnAssign):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        return isinstance(target, ast.Attribute | ast.Subscript) and node.value is not None
    if isinstance(node, ast.Delete):
        return not all(isinstance(target, ast.Name) for target in node.targets)
    ends = ast.Raise | ast.Continue | ast.Break | ast.Return
    return isinstance(node, ast.Expr | ast.AugAssign | ends)
