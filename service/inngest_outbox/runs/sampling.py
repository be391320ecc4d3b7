"""The held events that Inngest is asked about: a few of each name, in turns over names.

Of each slot of time the first and the last event of a name wait until they should have a run. So
the last event of a burst, which a debounced function runs, is among them. A name has a bounded
number of slots, however far ahead its events' own time lies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

import msgspec

from inngest_outbox.outbox.model import Row
from inngest_outbox.runs.figures import ALARM_EVENT, WINDOW_MS

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


@dataclass(slots=True)
class _Name:
    """A sampled name: its events that wait, by their slots, and what is known of its others.

    `last_due_ms` is when its last event is due, as if its own time were no later than when it was
    seen; `done_ms` when the last one was that was asked about, `asked_in` the turn of that.
    """

    slots: dict[int, list[Candidate]] = field(default_factory=dict)
    last_due_ms: int = 0
    done_ms: int = 0
    asked_in: int = 0


class Sampling:
    """The events to ask about. At most MAX_NAMES names; those in `always` stay.

    Times are milliseconds of the wall clock.
    """

    def __init__(self, no_run_seconds: float, always: Collection[str] = ()) -> None:
        self._no_run_ms = int(no_run_seconds * 1000)
        self.slot_ms = max(_LEAST_SLOT_MS, self._no_run_ms // _SLOTS)
        self._always = frozenset(always)
        self._names = {one: _Name() for one in always}
        self._again: deque[tuple[str, Candidate]] = deque(maxlen=_MOST_AGAIN)
        self._turns = 0

    @property
    def names(self) -> Collection[str]:
        """The names that are sampled."""
        return self._names.keys()

    def offer(self, row: Row, now_ms: int) -> bool:
        """Consider a delivered row; false where it is of no name that is sampled."""
        ulid = row.at_inngest
        if ulid is None or row.name == ALARM_EVENT:
            return False
        held_at_ms = max(row.settled_at_ms or 0, row.meta.ts_ms)
        due_ms = held_at_ms + self._no_run_ms
        over_ms = now_ms - WINDOW_MS  # what was due by then is not asked about
        if not self._has_room(row.name, due_ms, over_ms):
            return False
        known = self._names[row.name]
        known.last_due_ms = max(min(due_ms, now_ms + self._no_run_ms), known.last_due_ms)
        if due_ms > over_ms and due_ms > known.done_ms:
            since_ms = max(row.accepted_at_ms, row.meta.due_at_ms)
            meta = row.meta
            one = Candidate(ulid, meta.environment, since_ms, held_at_ms, due_ms, meta.wire_id)
            # Where its own time lies far ahead, its slot is longer.
            ahead = (held_at_ms - (row.settled_at_ms or 0)) // (_SLOTS * self.slot_ms)
            self._wait(known.slots, one, self.slot_ms << ahead.bit_length())
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
        for name, known in sorted(self._names.items(), key=lambda one: one[1].asked_in):
            slots = known.slots
            due = sorted(slot for slot, ones in slots.items() if ones[-1].due_ms <= now_ms)
            if not due:
                continue
            for slot in due[:-_MOST_SLOTS]:
                del slots[slot]
            candidate = slots[due[-1]].pop()
            if not slots[due[-1]]:
                del slots[due[-1]]
            known.done_ms = max(candidate.due_ms, known.done_ms)
            known.asked_in = self._turns
            return name, candidate
        return None

    def has_due(self, now_ms: int) -> bool:
        """True while an event is due that was not asked about."""
        waiting = (ones for known in self._names.values() for ones in known.slots.values())
        return any(ones[-1].due_ms <= now_ms for ones in waiting)

    def ask_again(self, name: str, candidate: Candidate, now_ms: int, *, soon: bool) -> None:
        """Ask once more about an event whose runs had not ended: soon, or after a longer time."""
        if not candidate.again:
            due_ms = now_ms if soon else now_ms + 3 * self._no_run_ms
            later = msgspec.structs.replace(candidate, due_ms=due_ms, again=True)
            self._again.append((name, later))

    def _wait(self, slots: dict[int, list[Candidate]], one: Candidate, slot_ms: int) -> None:
        """Keep the first and the last of a slot."""
        ones = slots.setdefault(one.due_ms // slot_ms * slot_ms, [])
        if one.ulid not in [known.ulid for known in ones]:
            ones.append(one)
            ones.sort(key=lambda known: (known.due_ms, known.ulid))
            del ones[1:-1]

    def _has_room(self, name: str, due_ms: int, over_ms: int) -> bool:
        """Make room for a name: one whose events are all over goes, for one whose event is not."""
        if name in self._names:
            return True
        if len(self._names) >= MAX_NAMES:
            others = self._names.keys() - self._always
            oldest = min(others, key=lambda one: self._names[one].last_due_ms, default=None)
            if oldest is None or not self._names[oldest].last_due_ms <= over_ms < due_ms:
                return False
            del self._names[oldest]
        self._names[name] = _Name()
        return True
