"""Application settings over HTTP: the user's own, and an organization's for operators."""

from __future__ import annotations

import structlog
from aiohttp import web

from inngest_outbox.app_settings.app_settings import MAX_SETTINGS_BYTES, AppSettings, parse_settings
from inngest_outbox.errors import (
    InvalidFieldError,
    OperatorRequiredError,
    OutboxUnavailableError,
)
from inngest_outbox.identity.scopes import Tree
from inngest_outbox.identity.user import Operators, User
from inngest_outbox.observe.printable import masked
from inngest_outbox.web.openapi.endpoint import Access, Answer, Body, Endpoint, Parameter
from inngest_outbox.web.server.answers import json_answer
from inngest_outbox.web.server.body import JSON_REFUSALS, read_json_bytes
from inngest_outbox.web.signin.auth import READ_REFUSALS, SIGNED_IN_REFUSALS, Authenticator

_MAX_ID_CHARS = 255

_SETTINGS = {"type": "object", "additionalProperties": True, "description": "At most 64 KiB."}
_EXAMPLE = {"index": {"language": "en", "ocr": True}}
_EFFECTIVE = {200: Answer("The effective settings", _SETTINGS, _EXAMPLE)}
_CHANGE_ERRORS = (*SIGNED_IN_REFUSALS, *JSON_REFUSALS, OutboxUnavailableError)
_ORGANIZATION = Parameter(
    "id",
    "The organization's id.",
    {"type": "string", "minLength": 1, "maxLength": _MAX_ID_CHARS},
    place="path",
)

_log = structlog.get_logger(__name__)


class AppSettingsResource:
    """The handlers under /api/settings."""

    def __init__(
        self,
        app_settings: AppSettings,
        authenticator: Authenticator,
        operators: Operators,
    ) -> None:
        self._app_settings = app_settings
        self._authenticator = authenticator
        self._operators = operators

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [
            web.get("/api/settings", self.show),
            web.put("/api/settings", self.replace_own),
            web.put("/api/settings/organization/{id}", self.replace_organization),
        ]

    def endpoints(self) -> list[Endpoint]:
        """The entries of the API's description."""
        body = Body(_SETTINGS, _EXAMPLE)
        return [
            Endpoint(
                method="GET",
                path="/api/settings",
                name="getSettings",
                tag="settings",
                summary="The effective application settings",
                answers=_EFFECTIVE,
                errors=(*READ_REFUSALS, OutboxUnavailableError),
            ),
            Endpoint(
                method="PUT",
                path="/api/settings",
                name="replaceSettings",
                tag="settings",
                summary="Replace your own application settings",
                body=body,
                answers=_EFFECTIVE,
                errors=_CHANGE_ERRORS,
            ),
            Endpoint(
                method="PUT",
                path="/api/settings/organization/{id}",
                name="replaceOrganizationSettings",
                tag="settings",
                summary="Replace an organization's application settings",
                access=Access.OPERATOR,
                parameters=[_ORGANIZATION],
                body=body,
                answers={200: Answer("The stored settings", _SETTINGS, _EXAMPLE)},
                errors=(*_CHANGE_ERRORS, OperatorRequiredError),
            ),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """The user's effective settings."""
        return await self._effective(await self._authenticator.user(request))

    async def replace_own(self, request: web.Request) -> web.Response:
        """Replace the user's own settings; answers the effective settings."""
        user = await self._authenticator.user(request)
        settings = await self._body(request)
        await self._app_settings.replace_user(user.owner, settings)
        return await self._effective(user)

    async def replace_organization(self, request: web.Request) -> web.Response:
        """Replace an organization's settings, for operators; answers the stored settings."""
        user = await self._authenticator.user(request)
        self._operators.require(user)
        organization_id = request.match_info["id"]
        if len(organization_id) > _MAX_ID_CHARS or not organization_id.isprintable():
            raise InvalidFieldError("An organization's id is 1 to 255 printable characters.")
        settings = await self._body(request)
        await self._app_settings.replace_organization(organization_id, settings)
        _log.info(
            "operator_action",
            action="replace_organization_settings",
            actor=masked(user.id),
            organization_id=organization_id,
        )
        return json_answer(settings)

    async def _body(self, request: web.Request) -> Tree:
        return parse_settings(await read_json_bytes(request, max_bytes=MAX_SETTINGS_BYTES))

    async def _effective(self, user: User) -> web.Response:
        encoded = await self._app_settings.effective(user)
        return web.Response(body=bytes(encoded), content_type="application/json")
