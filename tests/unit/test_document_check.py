"""What a check adds to an event, and how often it asks."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

import pytest

from inngest_outbox.documents.bucket import DocumentObject
from inngest_outbox.documents.document_check import DocumentCheck
from inngest_outbox.errors import DocumentNotFoundError, StorageUnavailableError
from tests.support.virtual_time import in_virtual_time

FOUND = DocumentObject(0, "e1", "text/plain", None)
EXTRA = {"object": {"size": 0, "etag": "e1", "contentType": "text/plain", "versionId": None}}


class Shelf:
    """Documents in memory; `answers` maps a name to what is found, or to an error."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []
        self.open = asyncio.Event()
        self.open.set()

    async def head(self, key):
        self.asked.append(key)
        await self.open.wait()
        answer = self.answers.get(key)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_off_adds_nothing_and_asks_nothing():
    shelf = Shelf(a=FOUND)
    assert await DocumentCheck("off", shelf)("a") == {}
    assert shelf.asked == []


@pytest.mark.parametrize(
    ("mode", "answer", "extra"),
    [
        ("enrich", FOUND, EXTRA),
        ("require", FOUND, EXTRA),
        ("enrich", None, {}),
        ("enrich", StorageUnavailableError(), {}),
        ("require", StorageUnavailableError(), {"unchecked": True}),
    ],
)
async def test_an_event_has_what_is_known_of_its_document(mode, answer, extra):
    assert await DocumentCheck(mode, Shelf(a=answer))("a") == extra


@pytest.mark.parametrize("answer", [None, StorageUnavailableError()])
@in_virtual_time
async def test_what_was_found_is_forgotten_after_five_seconds(answer):
    shelf = Shelf()
    check = DocumentCheck("enrich", shelf)
    for _ in range(2):
        shelf.answers["a"] = FOUND
        await check("a")
        shelf.answers["a"] = answer
        for later, extra in ((4.9, EXTRA), (0.1, {})):
            await asyncio.sleep(later)
            assert await check("a") == extra


@pytest.mark.parametrize(("mode", "unknown"), [("enrich", {}), ("require", {"unchecked": True})])
async def test_a_document_that_was_not_there_is_asked_about_again(mode, unknown):
    shelf = Shelf()
    check = DocumentCheck(mode, shelf)
    missing = pytest.raises(DocumentNotFoundError) if mode == "require" else nullcontext()
    with missing:
        assert await check("a") == {}
    shelf.answers["a"] = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await check("a")
    for answer, extra in ((StorageUnavailableError(), unknown), (FOUND, EXTRA)):
        shelf.answers["a"] = answer
        assert await check("a") == extra


@pytest.mark.parametrize("mode", ["enrich", "require"])
@in_virtual_time
async def test_the_last_1024_documents_are_kept(mode):
    names = [str(number) for number in range(1025)]
    shelf = Shelf(**dict.fromkeys(names, FOUND))
    check = DocumentCheck(mode, shelf)
    for name in (*names, *names[1:], names[0]):
        assert await check(name) == EXTRA
    assert shelf.asked == [*names, names[0]]


@pytest.mark.parametrize("answer", [FOUND, None, StorageUnavailableError()])
async def test_simultaneous_calls_for_one_name_ask_once(answer):
    shelf = Shelf(a=answer, b=FOUND)
    check = DocumentCheck("enrich", shelf)
    gates = {name: asyncio.Event() for name in "ab"}
    calls = {}
    for name, shelf.open in gates.items():
        calls[name] = [asyncio.create_task(check(name)) for _ in range(20)]
        for _ in range(2):  # until it asks
            await asyncio.sleep(0)
    for name, gate in gates.items():
        calls["b"].append(asyncio.create_task(check("b")))
        gate.set()
        answers = await asyncio.gather(*calls[name])
        assert len({str(found) for found in answers}) == 1
    assert shelf.asked == ["a", "b"]
    assert not check._asking


async def test_a_caller_that_leaves_takes_nothing_from_the_others():
    shelf = Shelf(a=FOUND)
    shelf.open.clear()
    check = DocumentCheck("enrich", shelf)
    first, second = asyncio.create_task(check("a")), asyncio.create_task(check("a"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    shelf.open.set()
    assert await second == EXTRA
    assert first.cancelled()
