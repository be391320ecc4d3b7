"""The held events that Inngest is asked about: a few of each name, in turns over names.

Of each slot of time the first and the last event of a name wait until they should have a run. So
the last event of a burst, which a debounced function runs, is among them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

import msgspec

from service.outbox.model import Row
from service.runs.figures import ALARM_EVENT, WINDOW_MS

MAX_NAMES = 100
_SLOTS = 60
_LEAST_SLOT_MS = 1000
_MOST_AGAIN = 200
_MOST_SLOTS = 20  # of a name's that are due


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A held event. `due_ms` is when it should have a run, `again` says that it was asked for.

    `wire_id` is the id that its sender chose, if it chose one.
    """

    ulid: str
    environment: str | None
    accepted_at_ms: int
    held_at_ms: int
    due_ms: int
    wire_id: str | None = None
    again: bool = False


class Sampling:
    """The events to ask about. At most MAX_NAMES names; those in `always` stay.

    Times are milliseconds of the wall clock.
    """

    def __init__(self, no_run_seconds: float, always: Collection[str] = ()) -> None:
        self._no_run_ms = int(no_run_seconds * 1000)
        self.slot_ms = max(_LEAST_SLOT_MS, self._no_run_ms // _SLOTS)
        self._always = frozenset(always)
        self._waiting: dict[str, dict[int, list[Candidate]]] = {one: {} for one in always}
        self._done: dict[str, int] = {}
        self._asked_in: dict[str, int] = {}
        self._last_due: dict[str, int] = {}
        self._again: deque[tuple[str, Candidate]] = deque(maxlen=_MOST_AGAIN)
        self._turns = 0

    @property
    def names(self) -> Collection[str]:
        """The names that are sampled."""
        return self._waiting.keys()

    def offer(self, row: Row, now_ms: int) -> bool:
        """Consider a delivered row; false where it is of no name that is sampled."""
        ulid = row.at_inngest
        if ulid is None or row.name == ALARM_EVENT:
            return False
        settled_at_ms = row.settled_at_ms or row.accepted_at_ms
        held_at_ms = max(settled_at_ms, row.meta.ts_ms)
        due_ms = held_at_ms + self._no_run_ms
        over_ms = now_ms - WINDOW_MS  # what was due by then is not asked about
        if not self._has_room(row.name, due_ms, over_ms):
            return False
        self._last_due[row.name] = max(due_ms, self._last_due.get(row.name, 0))
        if due_ms > over_ms and due_ms > self._done.get(row.name, 0):
            since_ms = max(row.accepted_at_ms, row.meta.due_at_ms)
            meta = row.meta
            one = Candidate(ulid, meta.environment, since_ms, held_at_ms, due_ms, meta.wire_id)
            self._wait(row.name, one)
        return True

    def next(self, now_ms: int) -> tuple[str, Candidate] | None:
        """The newest event that is due, of the name whose turn it is.

        Every fourth turn, and where no name is due, is that of an event whose runs had not ended.
        """
        self._turns += 1
        again = next((one for one in self._again if one[1].due_ms <= now_ms), None)
        if again and (self._turns % 4 == 0 or not self.has_due(now_ms)):
            self._again.remove(again)
            return again
        for name in sorted(self._waiting, key=lambda one: self._asked_in.get(one, 0)):
            slots = self._waiting[name]
            due = sorted(slot for slot, ones in slots.items() if ones[-1].due_ms <= now_ms)
            if not due:
                continue
            for slot in due[:-_MOST_SLOTS]:
                del slots[slot]
            candidate = slots[due[-1]].pop()
            if not slots[due[-1]]:
                del slots[due[-1]]
            self._done[name] = max(candidate.due_ms, self._done.get(name, 0))
            self._asked_in[name] = self._turns
            return name, candidate
        return None

    def has_due(self, now_ms: int) -> bool:
        """True while an event is due that was not asked about."""
        waiting = (ones for slots in self._waiting.values() for ones in slots.values())
        return any(ones[-1].due_ms <= now_ms for ones in waiting)

    def ask_again(self, name: str, candidate: Candidate, now_ms: int, *, soon: bool) -> None:
        """Ask once more about an event whose runs had not ended: soon, or after a longer time."""
        if not candidate.again:
            due_ms = now_ms if soon else now_ms + 3 * self._no_run_ms
            later = msgspec.structs.replace(candidate, due_ms=due_ms, again=True)
            self._again.append((name, later))

    def _wait(self, name: str, one: Candidate) -> None:
        """Keep the first and the last of a slot."""
        ones = self._waiting[name].setdefault(one.due_ms // self.slot_ms, [])
        if one.ulid not in [known.ulid for known in ones]:
            ones.append(one)
            ones.sort(key=lambda known: (known.due_ms, known.ulid))
            del ones[1:-1]

    def _has_room(self, name: str, due_ms: int, over_ms: int) -> bool:
        """Make room for a name: one whose events are all over goes, for one whose event is not."""
        if name in self._waiting:
            return True
        if len(self._waiting) >= MAX_NAMES:
            others = self._waiting.keys() - self._always
            oldest = min(others, key=self._last_due.__getitem__, default=None)
            if oldest is None or not self._last_due[oldest] <= over_ms < due_ms:
                return False
            for times in (self._waiting, self._last_due, self._done, self._asked_in):
                times.pop(oldest, None)
        self._waiting[name] = {}
        return True
