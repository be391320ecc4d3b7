"""Words that would steer a terminal or show other words, and what must be true of all words."""

from __future__ import annotations

import re

EVIL = "\x1b[2J\x9b31m\u202egnp.exe\u2066\x7f[/b]\r"
_COUNTED = (
    r"(?<![\w,.…-])([\d,]+) (?:more |delivered |dead |stored )?"
    r"((?:event|group|row|byte|object|setting)s?)\b"
)


def judge_counts(text: str) -> None:
    """Judge the nouns of numbers: one event, two events."""
    for count, noun in re.findall(_COUNTED, text):
        assert noun.endswith("s") == (count != "1"), f"{count} {noun}"
