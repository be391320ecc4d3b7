"""Text from elsewhere, made safe for terminals and logs.

Control characters can move a terminal's cursor or hide lines, and bidirectional ones can show words
in another order than they stand. Such characters never reach a screen as they are.
"""

from __future__ import annotations

_REPLACEMENT = "\ufffd"
_FIRST_ASTRAL = 0x10000


def printable(text: str) -> str:
    r"""`text` with a space for each line break or tab, and U+FFFD for what can't be shown.

    >>> printable("two\nlines\x1b[2J")
    'two lines�[2J'
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _substitute(one) for one in text)


def printable_lines(text: str) -> str:
    r"""`text` whose lines are kept, and each is printable.

    >>> printable_lines("two\nlines\x1b[2J\n")
    'two\nlines�[2J'
    """
    return "\n".join(map(printable, text.splitlines()))


def escaped_json(text: str) -> str:
    r"""JSON in which each character that can't be shown is an escape. Line breaks stay.

    >>> escaped_json('{"a": "\u202eb"}')
    '{"a": "\\u202eb"}'
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else _escape(one) for one in text)


def _substitute(character: str) -> str:
    return " " if character.isspace() else _REPLACEMENT


def _escape(character: str) -> str:
    code = ord(character)
    if code < _FIRST_ASTRAL:
        return f"\\u{code:04x}"
    high, low = divmod(code - _FIRST_ASTRAL, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def masked(actor: str) -> str:
    """The actor for the log: an e-mail is masked. The audit has the whole name.

    >>> masked("ada@example.com"), masked("ada")
    ('a***@example.com', 'ada')
    """
    name, at, host = actor.partition("@")
    return f"{name[:1]}***@{host}" if at else actor
