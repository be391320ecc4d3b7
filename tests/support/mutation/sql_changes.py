"""Small changes of an SQL statement: what a slip of the hand makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

_STATEMENT = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|PRAGMA|WHERE|BEGIN)\b")
_LOCK = r"\s+FOR (?:NO KEY )?(?:UPDATE|SHARE)(?: OF \w+)?(?: SKIP LOCKED| NOWAIT)?"
_SWAPS = (
    (_LOCK, ""),
    (r" SKIP LOCKED", ""),
    (r" NOWAIT", ""),
    (r"(?<![-<>=])<=", "<"),
    (r"(?<![-<>=])<(?![=>])", "<="),
    (r"(?<![-<>=])>=", ">"),
    (r"(?<![-<>=])>(?![=>])", ">="),
    (r" AND ", " OR "),
    (r" OR ", " AND "),
    (r"\bNOT ", ""),
    (r" DESC\b", ""),
    (r"\bDISTINCT ", ""),
    (r" \+ ", " - "),
    (r" - ", " + "),
    (r"\bgreatest\(", "least("),
    (r"\bleast\(", "greatest("),
    (r"\bmin\(", "max("),
    (r"\bmax\(", "min("),
    (r"\bON CONFLICT [^;]*? ?DO NOTHING", ""),
    (r"\bBEGIN IMMEDIATE", "BEGIN"),
    (r"\bsynchronous = FULL", "synchronous = OFF"),
)
_NUMBER = re.compile(r"(?<![\w?.%$:])\d+(?![\w.])")
_PREDICATE = re.compile(r"\b(?:WHERE|AND|OR|HAVING) (?!TRUE\b)")
_ENDS = re.compile(
    r"\s+(?:AND|OR|ORDER BY|GROUP BY|LIMIT|RETURNING|FOR (?:NO KEY )?(?:UPDATE|SHARE)|UNION"
    r"|HAVING|ON CONFLICT|THEN|OFFSET)\b|[);]|\{|$"
)
_CLAUSE = re.compile(r"\b(?:ORDER BY|LIMIT) (?=[^\s{])")
_CLAUSE_ENDS = re.compile(
    r"\s+(?:LIMIT|OFFSET|UNION|RETURNING|FOR (?:NO KEY )?(?:UPDATE|SHARE))\b|\s*(?:[);]|\{|$)"
)
_CASE_WORDS = re.compile(r"\b(?:CASE|WHEN|ELSE|END)\b")


def sql_changes(text: str) -> Iterator[tuple[str, str]]:
    """Each change of a statement, and the statement with it; none for other text.

    >>> [change for change, _ in sql_changes("SELECT a FROM t WHERE b = 1")]
    ['1 → 2', 'without b = 1']
    """
    if not _STATEMENT.search(text):
        return
    for pattern, instead in _SWAPS:
        for found in re.finditer(pattern, text):
            yield changed(text, found.start(), found.end(), instead)
    for found in _NUMBER.finditer(text):
        yield changed(text, found.start(), found.end(), str(int(found.group()) + 1))
    for found in _CLAUSE.finditer(text):
        yield changed(text, found.start(), _end_of(text, found.end(), _CLAUSE_ENDS), "")
    yield from _without_branches(text)
    for found in _PREDICATE.finditer(text):
        end = _end_of(text, found.end(), _ENDS)
        predicate = " ".join(text[found.end() : end].split())
        yield f"without {predicate}", f"{text[: found.end()]}TRUE{text[end:]}"


def changed(text: str, start: int, end: int, instead: str) -> tuple[str, str]:
    """The change in its surroundings, as the same words may occur more than once."""
    old = " ".join(text[start:end].split())
    after = " ".join(text[end : end + 40].split())[:24]
    change = f"{old} → {instead.strip() or 'nothing'}"
    return f"{change}{f' before {after}' if after else ''}", text[:start] + instead + text[end:]


def _without_branches(text: str) -> Iterator[tuple[str, str]]:
    """Each CASE without one of its branches; without the only one it is what ELSE gives."""
    open_cases: list[list[re.Match[str]]] = []
    for found in _CASE_WORDS.finditer(text):
        if found.group() == "CASE":
            open_cases.append([found])
        elif open_cases:
            open_cases[-1].append(found)
            if found.group() == "END":
                yield from _branches(text, open_cases.pop())


def _branches(text: str, words: list[re.Match[str]]) -> Iterator[tuple[str, str]]:
    whens = [at for at, word in enumerate(words) if word.group() == "WHEN"]
    for at in whens:
        start, end = words[at].start(), words[at + 1].start()
        sentence = f"without {' '.join(text[start:end].split())}"
        if len(whens) > 1:
            yield sentence, text[:start] + text[end:]
        else:
            before, after = text[: words[0].start()], text[words[-1].end() :]
            has_else = words[-2].group() == "ELSE"
            otherwise = text[words[-2].end() : words[-1].start()] if has_else else "NULL"
            yield sentence, f"{before}({otherwise.strip()}){after}"


def _end_of(text: str, start: int, pattern: re.Pattern[str]) -> int:
    """Where the expression ends that starts here: at the first end outside of its brackets."""
    depth = 0
    between = False
    at = start
    while at < len(text):
        if depth == 0:
            ends = pattern.match(text, at)
            if ends and not (between and ends.group().strip() == "AND"):
                return at
            between = (between and not ends) or text.startswith("BETWEEN", at)
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    return at
