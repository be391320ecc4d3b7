from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_test_file_has_a_name_of_its_own() -> None:
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, times in names.items() if times > 1] == []


MAX_FILE_LINES = 250
MAX_CLASS_LINES = 150
MAX_FUNCTION_LINES = 40


def modules() -> Iterator[tuple[Path, str]]:
    for path in sorted((TESTS.parent / "service").rglob("*.py")):
        yield path, path.read_text(encoding="utf-8")


def lines(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    count = (node.end_lineno or node.lineno) - node.lineno + 1
    if isinstance(node, ast.ClassDef) or not ast.get_docstring(node):
        return count
    text = node.body[0]
    return count - ((text.end_lineno or text.lineno) - text.lineno + 1)


def limit(node: ast.AST) -> int:
    return MAX_CLASS_LINES if isinstance(node, ast.ClassDef) else MAX_FUNCTION_LINES


def test_no_file_of_the_service_is_longer_than_250_lines() -> None:
    long = [path.name for path, text in modules() if len(text.splitlines()) > MAX_FILE_LINES]
    assert long == []


def test_no_class_but_settings_is_longer_than_150_lines_and_no_function_than_40() -> None:
    long = [
        f"{path.name}: {node.name}"
        for path, text in modules()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and lines(node) > limit(node)
    ]
    assert [name for name in long if not name.endswith(": Settings")] == []
