"""GET / in development: sign in, post an event, and watch it to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

import msgspec
from aiohttp import web
from markupsafe import Markup

from inngest_outbox.event_types.declaration import Declaration
from inngest_outbox.identity.sessions import Sessions
from inngest_outbox.identity.user import User
from inngest_outbox.web.openapi.endpoint import Endpoint
from inngest_outbox.web.pages.page import Pages

_SOMEBODY = "ada@example.com"


@dataclass(frozen=True, slots=True)
class _Kind:
    path: str
    name: str
    example: str


class StartPage:
    """The handler of the start page. `operators` are the e-mail addresses of operators."""

    def __init__(
        self,
        pages: Pages,
        sessions: Sessions,
        event_types: Iterable[Declaration],
        *,
        sign_in_path: str | None,
        operators: Sequence[str],
        is_operator: Callable[[User], bool],
    ) -> None:
        self._pages = pages
        self._sessions = sessions
        self._script = resources.files(__package__).joinpath("start.js").read_text("utf-8")
        self._kinds = [_Kind(one.path, one.name, _example(one)) for one in event_types]
        self._sign_in_path = sign_in_path
        self._email = operators[0] if operators else _SOMEBODY
        self._is_operator = is_operator

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.get("/", self.show)]

    def endpoints(self) -> list[Endpoint]:
        """None: a page for people."""
        return []

    async def show(self, request: web.Request) -> web.Response:
        """The page, for who is signed in."""
        user = await self._sessions.user(request)
        return self._pages.render(
            "start.html",
            "Outbox for Inngest",
            scripts=(self._script,),
            script=Markup(self._script),  # noqa: S704
            user=user,
            is_operator=user is not None and self._is_operator(user),
            email=self._email,
            kinds=self._kinds,
            sign_in_path=self._sign_in_path,
        )


def _example(kind: Declaration) -> str:
    found = kind.body.example
    return msgspec.json.format(msgspec.json.encode(found or {}), indent=2).decode()
