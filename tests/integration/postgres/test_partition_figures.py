"""What a purge on PostgreSQL knows of the partitions."""

from __future__ import annotations

from service.outbox.postgres.partitions import FIGURES
from tests.support.postgres_room import Room, after


def test_the_partitions_in_use_come_in_their_order_with_their_age(room: Room) -> None:
    room.run("DELETE FROM outbox_partitions")
    room.run("SELECT setval('outbox_seq_seq', 500)")
    closed = {"opened_at": after(0), "last_seq": 99}
    room.put("partitions", number=3, first_seq=200, opened_at=after(60))
    room.put("partitions", number=1, first_seq=10, closed_at=after(20), **closed)
    room.put("partitions", number=2, first_seq=100, closed_at=after(40), **closed)
    room.put("partitions", number=4, first_seq=300)  # made, not open
    room.put("partitions", number=0, first_seq=0, closed_at=after(1), counted_to=5, **closed)
    assert room.at(100).run(FIGURES) == [
        (1 << 36, 99, 491, 80.0),
        (2 << 36, 99, 401, 60.0),
        (3 << 36, None, 301, 40.0),
    ]
