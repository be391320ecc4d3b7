"""The size of the code: `make house` prints it, for this tree or for others.

Counts rest on the syntax tree. The way of a post is traced in a real `serve` process: each call of
a function of `service/` from the first byte of a request until its answer has left, on any thread,
is counted.
"""

from __future__ import annotations

import ast
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench import traced_post

_QUESTION = re.compile(r"(What|Whether|How|Which|Who)\b")
_SQL = re.compile(r"\s*(--|SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|MERGE)\b", re.IGNORECASE)
_NAMED = re.compile(r"^-- name: ", re.MULTILINE)
_SMALL_MODULE = 40
_LONG_STATEMENT = 40


def measures(tree: Path) -> dict[str, int]:
    """Each measure of the checkout `tree`, by its name."""
    modules = [
        path
        for path in _files(tree / "service" / "inngest_outbox", "*.py")
        if _is_housed(path, tree)
    ]
    parsed = {path: ast.parse(path.read_text()) for path in modules}
    folders = Counter(path.parent for path in modules if path.name != "__init__.py")
    return {
        "files in the largest folder": max(folders.values()),
        "modules under 40 lines with one importer": len(list(_lodgers(tree, parsed))),
        "SQL statements over 40 lines": _long_statements(tree, parsed),
        "lines of service/ without dev/": sum(map(_lines, modules)),
        "modules": len(modules),
        "lines of SQL": sum(map(_lines, _files(tree, "*.sql"))),
        "lines of tests": sum(map(_lines, _files(tree / "tests", "*.py"))),
        "docstrings that begin with a question word": sum(map(_questions, parsed.values())),
    }


def way_of_a_post(tree: Path) -> dict[str, int]:
    """Modules entered and calls made by one post in a `serve` process of `tree`, the median."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, traced_post.__file__, str(tree), folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120, cwd=tree)
        posts = json.loads((Path(folder) / "posts.json").read_text())
    return {
        f"{what} on a post's way": round(statistics.median(post[what] for post in posts))
        for what in ("modules", "calls")
    }


def _is_housed(path: Path, tree: Path) -> bool:
    room = path.relative_to(tree / "service" / "inngest_outbox").parts[0]
    return room not in {"dev", "fake_inngest"} and "cli/demo" not in str(path)


def _files(folder: Path, pattern: str) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob(pattern))
        if not any(part.startswith(".") or part == "node_modules" for part in path.parts)
    ]


def _lines(path: Path) -> int:
    return path.read_text().count("\n")


def _lodgers(tree: Path, parsed: dict[Path, ast.Module]) -> Iterator[Path]:
    importers: Counter[str] = Counter()
    for module in parsed.values():
        importers.update(set(_imports(module)))
    for path in parsed:
        name = ".".join(path.relative_to(tree).with_suffix("").parts)
        if path.name != "__init__.py" and _lines(path) < _SMALL_MODULE and importers[name] == 1:
            yield path


def _imports(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def _long_statements(tree: Path, parsed: dict[Path, ast.Module]) -> int:
    texts = [
        node.value
        for module in parsed.values()
        for node in ast.walk(module)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _SQL.match(node.value)
    ]
    for path in _files(tree / "service" / "inngest_outbox", "*.sql"):
        texts += _NAMED.split(path.read_text())
    return sum(text.strip().count("\n") >= _LONG_STATEMENT for text in texts)


def _questions(module: ast.Module) -> int:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(module) if isinstance(node, kinds))
    return sum(bool(words and _QUESTION.match(words)) for words in found)


def main() -> None:
    """Print a row for each measure, with a column for each tree that the arguments name."""
    trees = [Path(name).resolve() for name in sys.argv[1:]] or [Path.cwd()]
    columns = [way_of_a_post(tree) | measures(tree) for tree in trees]
    print("| measure |" + "".join(f" {tree.name} |" for tree in trees))
    print("|---|" + "---|" * len(trees))
    for name in columns[0]:
        print(f"| {name} |" + "".join(f" {column[name]:,} |" for column in columns))


if __name__ == "__main__":
    main()
