"""An S3 API with one object of any size, made while it is sent and held by nobody."""

from __future__ import annotations

import asyncio
import hashlib

from aiohttp import web

_PIECE = bytes(range(256)) * 1024


class LargeObject:
    """Every GET answers `size_bytes` bytes, once `released` is set; `asked` tells of the first."""

    def __init__(self, size_bytes):
        self.size_bytes = size_bytes
        self.asked = asyncio.Event()
        self.released = asyncio.Event()

    def app(self):
        app = web.Application()
        app.router.add_get("/{bucket}/{key:.*}", self._get)
        return app

    def sha256(self):
        digest = hashlib.sha256()
        for piece in self._pieces():
            digest.update(piece)
        return digest.hexdigest()

    def _pieces(self):
        whole, rest = divmod(self.size_bytes, len(_PIECE))
        yield from (_PIECE for _ in range(whole))
        yield _PIECE[:rest]

    async def _get(self, request):
        self.asked.set()
        await self.released.wait()
        answer = web.StreamResponse(headers={"ETag": '"e"', "Content-Type": "text/plain"})
        answer.content_length = self.size_bytes
        await answer.prepare(request)
        for piece in self._pieces():
            await answer.write(piece)
        return answer
