"""A gate before an S3 API that enforces POST policies as S3 documents them.

moto stores whatever is posted to it: it checks neither the signature nor the policy. This gate
does both, and passes what is good on to moto.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json

import aiohttp
from aiohttp import web

_UNCHECKED = {"policy", "x-amz-signature", "file"}


def gate(target: str, secret: str) -> web.Application:
    """An application that takes POST /bucket and forwards good uploads to `target`."""

    async def post(request: web.Request) -> web.Response:
        fields, content, after_file = await _read(request)
        reason = "field after file" if after_file else judge(fields, content, secret)
        if reason:
            return web.Response(status=403, text=reason)
        form = aiohttp.FormData()
        for name, value in fields.items():
            form.add_field(name, value)
        form.add_field("file", content, filename="file")
        url = f"{target}{request.path}"
        async with aiohttp.ClientSession() as http, http.post(url, data=form) as answer:
            return web.Response(status=answer.status)

    app = web.Application()
    app.router.add_post("/{bucket}", post)
    return app


def judge(fields: dict[str, str], content: bytes, secret: str) -> str | None:
    """Why S3 would refuse this upload, None when it would not."""
    given = {name.lower(): value for name, value in fields.items()}
    if not hmac.compare_digest(_signature(given, secret), given["x-amz-signature"]):
        return "SignatureDoesNotMatch"
    policy = json.loads(base64.b64decode(given["policy"]))
    now = dt.datetime.now(dt.UTC)
    if dt.datetime.fromisoformat(policy["expiration"]) < now:
        return "policy expired"
    covered = set(_UNCHECKED)
    for condition in policy["conditions"]:
        name = _check(condition, given, len(content))
        if name is None:
            return f"failed: {condition}"
        covered.add(name)
    extra = set(given) - covered
    return f"extra fields: {extra}" if extra else None


def _check(condition: object, given: dict[str, str], size: int) -> str | None:
    if isinstance(condition, dict):
        [(name, value)] = condition.items()
        return name.lower() if name == "bucket" or given.get(name.lower()) == value else None
    operator, first, second = condition
    if operator == "content-length-range":
        return operator if first <= size <= second else None
    name = first.removeprefix("$").lower()
    value = given.get(name, "")
    good = value.startswith(second) if operator == "starts-with" else value == second
    return name if good else None


def _signature(given: dict[str, str], secret: str) -> str:
    key = b"AWS4" + secret.encode()
    for part in given["x-amz-credential"].split("/")[1:]:
        key = hmac.digest(key, part.encode(), hashlib.sha256)
    return hmac.digest(key, given["policy"].encode(), hashlib.sha256).hex()


async def _read(request: web.Request) -> tuple[dict[str, str], bytes, bool]:
    fields, content, after_file = {}, None, False
    async for part in await request.multipart():
        if content is not None:
            after_file = True
        elif part.name == "file":
            content = bytes(await part.read())
        else:
            fields[part.name] = await part.text()
    return fields, content or b"", after_file
