"""Who holds how much of the outbox."""

from __future__ import annotations

from service.outbox.figures import OwnerShare
from service.outbox.model import Named
from tests.support.storage import Outbox, append_all, claim, deliver


async def test_who_holds_the_most_bytes_comes_first_with_rows_of_every_state(
    outbox: Outbox,
) -> None:
    assert await outbox.inspector.owners(10) == []
    few = await append_all(outbox, 1, "u-few")
    await deliver(outbox, await claim(outbox))
    many = await append_all(outbox, 3, "u-many")
    found = await outbox.inspector.owners(10)
    expected = [
        OwnerShare(rows[0].owner, len(rows), sum(len(one.payload) for one in rows))
        for rows in (many, few)
    ]
    assert found == expected
    assert await outbox.inspector.owners(1) == expected[:1]


async def test_rows_that_are_removed_are_nobodys(outbox: Outbox) -> None:
    await append_all(outbox, 2)
    await deliver(outbox, await claim(outbox))
    [left] = await append_all(outbox, 1)
    [other] = await append_all(outbox, 1, "u-2")
    assert await outbox.repairs.purge(older_than_seconds=-1, actor=None) == 2
    await outbox.repairs.discard(Named((other.id,)), actor="ada")
    assert await outbox.inspector.owners(10) == [OwnerShare("u-1", 1, len(left.payload))]
