"""Is a history linearizable? Each call must have had its effect at one moment before its answer.

The calls are followed in the order of time. What may be true is a set of possibilities: a state,
the writes under way that are in it, and the reads under way that some state since their beginning
explains. At an answer the possibilities are kept in which the call has happened; others are led
there by writes under way. None left means that what was told was true at no moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.support.linearizability.model import READS, UNCHECKED, Model, State
from tests.support.linearizability.record import Call

MOST_POSSIBILITIES = 50_000


class NotLinearizableError(AssertionError):
    """What a call was told was true at no moment between call and answer."""


class Possibility(NamedTuple):
    state: State
    applied: frozenset[str]
    explained: frozenset[str]


class Linearization:
    """Follows the calls of one history."""

    def __init__(self, calls: list[Call], *, recovers: bool) -> None:
        self._calls = calls
        self._model = Model(calls, recovers=recovers)
        self._writes: dict[str, Call] = {}
        self._reads: dict[str, Call] = {}
        self._possible = {Possibility(self._model.first, frozenset(), frozenset())}

    def check(self) -> None:
        """Raises NotLinearizableError."""
        if twice := self._model.numbers_given_twice:
            raise NotLinearizableError(f"{twice} numbers were given to two events")
        for _, is_answer, call in sorted(self._moments(), key=lambda one: one[:2]):
            if call.kind in UNCHECKED:
                continue
            if call.kind == "truth":
                if is_answer:
                    self._found(call)
            elif not is_answer:
                self._begin(call)
            else:
                self._answer(call)

    def _moments(self) -> Iterator[tuple[int, bool, Call]]:
        for call in self._calls:
            if call.ended_ns is not None:
                yield call.ended_ns, True, call
            elif call.kind in READS:
                continue
            yield call.began_ns, False, call

    def _begin(self, call: Call) -> None:
        if call.kind in READS:
            self._reads[call.name] = call
            self._possible = {self._with_reads(one, [call]) for one in self._possible}
        else:
            self._writes[call.name] = call

    def _answer(self, call: Call) -> None:
        """Keep the possibilities in which the call has happened."""
        name = frozenset([call.name])
        happened = {
            Possibility(one.state, one.applied - name, one.explained - name)
            for one in self._reached(call.name)
            if call.name in one.applied or call.name in one.explained
        }
        if not happened:
            raise NotLinearizableError(self._words(call))
        self._possible = happened
        self._reads.pop(call.name, None)
        self._writes.pop(call.name, None)

    def _reached(self, name: str | None) -> Iterator[Possibility]:
        """What writes under way may lead to, up to where the call of this name has happened."""
        left, seen = list(self._possible), set(self._possible)
        while left:
            one = left.pop()
            yield one
            if name in one.applied or name in one.explained:
                continue
            for write in self._writes.values():
                if write.name in one.applied:
                    continue
                for state in self._model.after(one.state, write):
                    after = Possibility(state, one.applied | {write.name}, one.explained)
                    after = self._with_reads(after, self._reads.values())
                    if after not in seen:
                        seen.add(after)
                        left.append(after)
            if len(seen) > MOST_POSSIBILITIES:
                raise RuntimeError(f"too many calls at once: {sorted(self._writes)}")

    def _with_reads(self, one: Possibility, reads: Iterable[Call]) -> Possibility:
        explained = {
            read.name
            for read in reads
            if read.name not in one.explained and self._model.explains(one.state, read)
        }
        return one._replace(explained=one.explained | explained) if explained else one

    def _found(self, call: Call) -> None:
        """After a kill: the tables hold one of the possible states; nothing is under way."""
        truth = self._model.truth(call)
        if all(one.state != truth for one in self._reached(None)):
            raise NotLinearizableError(self._words(call))
        self._writes.clear()
        self._reads.clear()
        self._possible = {Possibility(truth, frozenset(), frozenset())}

    def _words(self, call: Call) -> str:
        states = {self._model.words(one.state) for one in self._possible}
        told = str(call.told)[:600]
        return (
            f"{call.name}: {call.kind} {str(call.asked)[:300]} was told {told}, "
            f"which was true at no moment. Possible at its end: {'; '.join(sorted(states)[:3])}. "
            f"Under way: {sorted(one.kind for one in self._writes.values())}"
        )
