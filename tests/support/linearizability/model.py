"""A plain model of an outbox: where each event is, and whether delivery is paused.

A state is a letter for each event and the pause. A write gives the states that it may lead to; none
means that what was told can't be true in this state. A read is explained by a state or not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tests.support.linearizability.record import Call

ABSENT = ord(".")
LETTERS = {
    "pending": ord("p"),
    "delivering": ord("c"),
    "sent": ord("s"),
    "delivered": ord("d"),
    "dead": ord("x"),
}
PENDING, DELIVERING, SENT, DELIVERED, DEAD = LETTERS.values()
# What a purge removes is checked page by page.
UNCHECKED = frozenset({"numbered", "purge"})
READS = frozenset({"stats", "list", "show", "count", "paused"})


class State(NamedTuple):
    rows: bytes
    paused: bool


class _Event(NamedTuple):
    id: str
    at: int
    seq: int


class Model:
    """The model of the events that these calls name. `recovers`: a start ends all claims.

    That is so on SQLite, where one process writes.
    """

    def __init__(self, calls: Sequence[Call], *, recovers: bool) -> None:
        self._recovers = recovers
        self._seqs: dict[str, int] = {}
        self._at: dict[str, int] = {}
        for call in calls:
            self._know(call)
        self._held = {
            purge.name: self._discarded_meanwhile(purge, calls)
            for purge in calls
            if purge.kind == "page"
        }
        self._repeated = [
            call.asked for call in calls if call.kind == "settle" and call.ended_ns is None
        ]
        order = sorted(self._at, key=lambda one: self._seqs.get(one, 0), reverse=True)
        self._newest_first = [_Event(one, self._at[one], self._seqs.get(one, 0)) for one in order]
        self._writes: dict[str, Callable[[State, Call], Iterable[State]]] = {
            "append": self._append,
            "claim": self._claim,
            "release": lambda state, call: self._move(state, call.asked, DELIVERING, PENDING),
            "return": lambda state, call: self._move(state, call.asked, DELIVERING, PENDING),
            "settle": self._settle,
            "settle again": lambda state, call: [state] * self._may_say(call, call.asked),
            "confirm": lambda state, call: self._counted(state, call, DELIVERED),
            "resend": lambda state, call: self._counted(state, call, PENDING),
            "replay": lambda state, call: self._chosen(state, call, (DEAD,), PENDING),
            "discard": lambda state, call: self._chosen(
                state, call, (PENDING, SENT, DELIVERED, DEAD), ABSENT
            ),
            "page": self._purge,
            "pause": lambda state, call: [state._replace(paused=call.asked)],
            "start": self._start,
        }

    @property
    def numbers_given_twice(self) -> int:
        """How many events have a number that an earlier event had."""
        return len(self._seqs) - len(set(self._seqs.values()))

    @property
    def first(self) -> State:
        """Before any call."""
        return State(bytes([ABSENT]) * len(self._at), paused=False)

    def truth(self, call: Call) -> State:
        """What a look into the tables has found."""
        rows = bytearray(self.first.rows)
        for event_id, state, _ in call.told["rows"]:
            rows[self._at[event_id]] = LETTERS[state]
        return State(bytes(rows), call.told["paused"])

    def after(self, state: State, call: Call) -> Iterable[State]:
        """The states that a write may lead to."""
        return self._writes[call.kind](state, call)

    def explains(self, state: State, call: Call) -> bool:
        """Whether a read may say so in this state."""
        told, asked = call.told, call.asked
        match call.kind:
            case "stats":
                counts = {name: state.rows.count(letter) for name, letter in LETTERS.items()}
                return bool(told == {**counts, "paused": state.paused})
            case "paused":
                return bool(told == state.paused)
            case "count":
                return bool(told == min(asked["limit"], len(list(self._matching(state, asked)))))
            case "show":
                row = state.rows[self._at[asked]]
                return bool(row == (ABSENT if told is None else LETTERS[told]))
        found = list(itertools.islice(self._matching(state, asked), asked["limit"]))
        return found == [(event_id, LETTERS[name]) for event_id, name, _ in told]

    def words(self, state: State) -> str:
        """A state for people."""
        counts = {name: state.rows.count(letter) for name, letter in LETTERS.items()}
        return f"{counts}, {'paused' if state.paused else 'not paused'}"

    def _know(self, call: Call) -> None:
        """Learn the ids and numbers of events."""
        told: Sequence[Sequence[Any]] = ()
        if call.kind == "append":
            told = call.told or [(event_id, None) for event_id in call.asked]
        elif call.kind in ("list", "numbered"):
            told = call.told or ()
        elif call.kind == "truth":
            told = call.told["rows"]
        for event_id, *_, seq in told:
            self._at.setdefault(event_id, len(self._at))
            if seq is not None:
                self._seqs[event_id] = seq
        asked = {"show": [call.asked], "discard": call.asked}.get(call.kind, ())
        for event_id in asked:
            self._at.setdefault(event_id, len(self._at))

    def _discarded_meanwhile(self, purge: Call, calls: Sequence[Call]) -> set[int]:
        """Rows that a purge may leave to discards at the same time, where rows have locks."""
        return {
            self._at[event_id]
            for call in calls
            if call.kind == "discard" and not self._recovers and _overlap(call, purge)
            for event_id in call.asked
        }

    def _matching(self, state: State, asked: Any) -> Iterator[tuple[str, int]]:
        wanted = LETTERS.get(asked["state"])
        for one in self._newest_first:
            row = state.rows[one.at]
            if row != ABSENT and wanted in (None, row):
                yield one.id, row

    def _move(self, state: State, ids: Iterable[str], source: int, target: int) -> Iterator[State]:
        """All these events go from one place to another."""
        rows = bytearray(state.rows)
        for event_id in ids:
            if rows[self._at[event_id]] != source:
                return
            rows[self._at[event_id]] = target
        yield state._replace(rows=bytes(rows))

    def _append(self, state: State, call: Call) -> Iterable[State]:
        ids = [one[0] for one in call.told] if call.told else call.asked
        return self._move(state, ids, ABSENT, PENDING)

    def _claim(self, state: State, call: Call) -> Iterator[State]:
        if call.told == []:
            yield state
        for ids in [call.told] if call.told else call.asked or ():
            yield from self._move(state, ids, PENDING, DELIVERING)

    def _settle(self, state: State, call: Call) -> Iterator[State]:
        """Rows under a claim are nobody else's: all are settled.

        A settlement without an answer is repeated; then it may find nothing.
        """
        if call.asked in self._repeated:
            yield state
        rows = bytearray(state.rows)
        for name, ids in call.asked.items():
            for event_id in ids:
                if rows[self._at[event_id]] != DELIVERING:
                    return
                rows[self._at[event_id]] = LETTERS[name]
        if self._may_say(call, 0):
            yield state._replace(rows=bytes(rows))

    def _counted(self, state: State, call: Call, target: int) -> Iterator[State]:
        """Those of the named events that are sent go to another place; their number is told."""
        ids = [one for one in call.asked if state.rows[self._at[one]] == SENT]
        if self._may_say(call, len(ids)):
            yield from self._move(state, ids, SENT, target)

    def _chosen(
        self, state: State, call: Call, sources: Sequence[int], target: int
    ) -> Iterator[State]:
        """The named events that the answer lists; without an answer any that match."""
        matching = [one for one in call.asked if state.rows[self._at[one]] in sources]
        if call.told is not None:
            choices: Iterable[Sequence[str]] = (
                [call.told] if set(call.told) <= set(matching) else []
            )
        else:
            choices = _subsets(matching)
        for ids in choices:
            yield self._put(state, [self._at[one] for one in ids], target)

    def _purge(self, state: State, call: Call) -> Iterator[State]:
        """A page: all delivered rows go at once, but for those that others hold meanwhile."""
        page = [one.at for one in self._newest_first if one.seq > call.asked]
        delivered = [at for at in page if state.rows[at] == DELIVERED]
        for left in _subsets(sorted(self._held[call.name].intersection(delivered))):
            gone = [at for at in delivered if at not in left]
            if self._may_say(call, len(gone)):
                yield self._put(state, gone, ABSENT)

    def _start(self, state: State, call: Call) -> Iterator[State]:
        claimed = [at for at, row in enumerate(state.rows) if row == DELIVERING]
        yield self._put(state, claimed if self._recovers else (), PENDING)

    def _may_say(self, call: Call, count: int) -> bool:
        """On PostgreSQL a statement is repeated after a cut connection: it may count the rest."""
        return not self._recovers or call.told in (None, count)

    def _put(self, state: State, ats: Iterable[int], target: int) -> State:
        rows = bytearray(state.rows)
        for at in ats:
            rows[at] = target
        return state._replace(rows=bytes(rows))


def _subsets(ids: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    return itertools.chain(*(itertools.combinations(ids, one) for one in range(len(ids) + 1)))


def _overlap(one: Call, other: Call) -> bool:
    return all(
        first.ended_ns is None or second.began_ns < first.ended_ns
        for first, second in ((one, other), (other, one))
    )
