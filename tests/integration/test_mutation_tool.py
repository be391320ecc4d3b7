"""The trial by mutants: what a test does not look at lives, and what it looks at is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mutation.function_changes import function_changes
from tests.support.mutation.harmless import harmless
from tests.support.mutation.judges import JUDGES, modules_of
from tests.support.mutation.mutants import mutants
from tests.support.mutation.sql_changes import sql_changes
from tests.support.mutation.sql_functions import is_function, sql_mutants

ROOT = Path(__file__).parents[2]
# The example needs no fixture and no plugin of the suite: each run would load them again.
ALONE = {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTEST_ADDOPTS": "--noconftest -c /dev/null --rootdir=. -p pytest_timeout",
}
TRY = """
import sys
from tests.support.mutation.trial import try_module
verdict = try_module("tests/support/mutation/example/fare.py", sys.argv[1:])
for mutant in verdict.alive:
    print(mutant.name)
"""


def survivors(judge: str) -> list[str]:
    command = [sys.executable, "-c", TRY, f"tests/support/mutation/example/{judge}.py"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | ALONE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_weak_test_lets_mutants_live_and_a_sharp_one_kills_them() -> None:
    assert survivors("sharp") == []
    alive = survivors("weak")
    assert "fare: kilometres > LONG_KILOMETRES → kilometres >= LONG_KILOMETRES" in alive
    assert "fare: price * kilometres → price // kilometres" in alive
    assert "fare: 200 → 201" not in alive


def test_a_test_that_is_collected_with_a_constant_has_the_mutants_value() -> None:
    alive = survivors("relative")
    assert {"LONG_KILOMETRES: 10 → 11", "LONG_KILOMETRES: 10 → 9"} <= set(alive)
    assert "fare: kilometres > LONG_KILOMETRES → kilometres >= LONG_KILOMETRES" not in alive


def names(source: str) -> set[str]:
    return {mutant.name for mutant in mutants(source)}


def test_code_is_changed_in_each_way() -> None:
    source = """
async def f(self, a):
    async with self._lock:
        await self._write(a[:3], now=True)
    return a and not self.done
"""
    assert names(source) >= {
        "f: without with self._lock",
        "f: without await self._write(a[:3], now=True)",
        "f: self._write(…) without now=True",
        "f: a[:3] → a",
        "f: True → False",
        "f: a and (not self.done) → a or not self.done",
        "f: not self.done → self.done",
        "f: return a and (not self.done) → return None",
    }


def test_a_mutant_is_the_module_with_one_change() -> None:
    source = "def f(a):\n    return a + 1\n"
    results = []
    for mutant in mutants(source):
        space: dict[str, object] = {}
        exec(mutant.compiled("f.py"), space)
        results.append(space["f"](5))  # type: ignore[operator]
    assert sorted(results, key=str) == [4, 5, 7, None]


def test_statements_lose_a_lock_a_bound_and_each_predicate() -> None:
    statement = (
        "SELECT seq FROM t WHERE a <= ?1 AND b = 2 ORDER BY seq LIMIT ?2 FOR UPDATE SKIP LOCKED"
    )
    changed = dict(sql_changes(statement))
    assert "SELECT seq FROM t WHERE a <= ?1 AND b = 2 ORDER BY seq LIMIT ?2" in changed.values()
    assert statement.replace(" SKIP LOCKED", "") in changed.values()
    assert statement.replace("<=", "<") in changed.values()
    assert changed["without a <= ?1"] == statement.replace("a <= ?1", "TRUE")
    assert changed["without b = 2"] == statement.replace("b = 2", "TRUE")
    assert list(sql_changes("no statement, 1 < 2")) == []


def test_statements_lose_each_order_and_each_limit() -> None:
    statement = (
        "SELECT (SELECT b FROM u ORDER BY b, c DESC LIMIT 1) FROM t WHERE a = 1 "
        "ORDER BY seq LIMIT (SELECT max(n) FROM u) FOR UPDATE"
    )
    changed = set(dict(sql_changes(statement)).values())
    parts = "ORDER BY b, c DESC", "LIMIT 1", "ORDER BY seq", "LIMIT (SELECT max(n) FROM u)"
    assert {statement.replace(part, "") for part in parts} <= changed


def test_a_case_loses_each_of_its_branches() -> None:
    two = "SELECT CASE WHEN a THEN 1 WHEN b THEN CASE WHEN c THEN 2 END ELSE 3 END FROM t"
    changed = dict(sql_changes(two))
    assert changed["without WHEN a THEN 1"] == two.replace("WHEN a THEN 1 ", "")
    assert changed["without WHEN b THEN CASE WHEN c THEN 2 END"] == (
        "SELECT CASE WHEN a THEN 1 ELSE 3 END FROM t"
    )
    assert changed["without WHEN c THEN 2"] == two.replace("CASE WHEN c THEN 2 END", "(NULL)")
    one = "SELECT CASE b WHEN 1 THEN 2 ELSE b END + 1 FROM t"
    assert dict(sql_changes(one))["without WHEN 1 THEN 2"] == "SELECT (b) + 1 FROM t"


def test_a_functions_mutants_change_its_last_definition() -> None:
    found = sql_mutants("migrations/postgresql/0002_partitions.sql/outbox_enter")
    assert len({one.name for one in found}) == len(found)
    assert all(one.name.startswith("outbox_enter: ") for one in found)
    assert {one.body for one in found} == {found[0].body}
    assert "outbox_fold_unread" in found[0].body
    assert found[0].body not in {one.instead for one in found}


def test_a_function_loses_each_statement_each_condition_and_each_sqlstate() -> None:
    body = """
DECLARE
    found text := coalesce(a, nullif(b, ''));
BEGIN
    IF a = 1 OR b IS NULL THEN
        RAISE EXCEPTION 'no' USING ERRCODE = 'unique_violation';
    END IF;
    PERFORM set_config('a', 'b', true);
    RETURN found;
END
"""
    changed = dict(function_changes(body))
    for part in ("PERFORM set_config('a', 'b', true)", "RETURN found"):
        assert changed[f"without {part}"] == body.replace(part, "NULL")
    assert changed["TRUE instead of a = 1 OR b IS NULL"] == body.replace(
        "a = 1 OR b IS NULL", "TRUE"
    )
    parts = {
        " USING ERRCODE = 'unique_violation'": "",
        "a = 1": "a <> 1",
        "IS NULL": "IS NOT NULL",
        "true": "false",
        "coalesce(a, nullif(b, ''))": "a",
        "nullif(b, '')": "b",
    }
    assert {body.replace(part, instead) for part, instead in parts.items()} < set(changed.values())


def test_the_comments_of_a_function_are_left_alone() -> None:
    found = sql_mutants("migrations/postgresql/0002_partitions.sql/outbox_append")
    assert "--" in found[0].body
    assert not any("--" in one.instead for one in found)


@pytest.mark.parametrize("path", JUDGES)
def test_each_module_and_its_judges_are_there(path: str) -> None:
    of = str(Path(path).parent) if is_function(path) else path
    for file in (of, *JUDGES[path].files):
        assert (ROOT / file).is_file()
    assert path in modules_of([path])


def test_what_is_listed_as_harmless_is_a_mutant_with_a_reason() -> None:
    for path, reasons in harmless().items():
        assert all(reasons.values())
        if is_function(path):
            found = {one.name for one in sql_mutants(path)}
        else:
            found = names((ROOT / path).read_text())
        assert set(reasons) - found == set()
