"""Sign-in through the OpenID provider: the redirect to it, and the return."""

from __future__ import annotations

from aiohttp import hdrs, web

from inngest_outbox.errors import (
    InvalidFieldError,
    OutboxUnavailableError,
    ProviderUnavailableError,
    SignInFailedError,
)
from inngest_outbox.identity.oidc import OidcSignIn
from inngest_outbox.identity.sessions import Sessions
from inngest_outbox.identity.sign_in_attempt import AttemptCookie, begin_attempt
from inngest_outbox.web.openapi.endpoint import Access, Answer, Endpoint, Parameter, ResponseHeader
from inngest_outbox.web.server.connection import while_connected
from inngest_outbox.web.server.proxies import Proxies

_CALLBACK = "/auth/callback"
_LOCATION = ResponseHeader("Location", "Where to go.")
_RETURN_TO = Parameter("returnTo", "A path of this service to come back to.")
_CALLBACK_PARAMETERS = (
    Parameter("code", "The provider's code."),
    Parameter("state", "The state of the sign-in."),
    Parameter("iss", "The provider."),
    Parameter("error", "Why the provider refuses."),
)


class OidcResource:
    """The handlers of the OpenID Connect sign-in.

    Register `<origin>/auth/callback` at the provider. The origin is the browser's; with `secure` it
    is https.
    """

    def __init__(
        self,
        oidc: OidcSignIn,
        sessions: Sessions,
        cookie: AttemptCookie,
        *,
        secure: bool,
        proxies: Proxies,
    ) -> None:
        self._oidc = oidc
        self._sessions = sessions
        self._cookie = cookie
        self._secure = secure
        self._proxies = proxies

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [
            web.get("/auth/login", self.login, allow_head=False),
            web.get(_CALLBACK, self.callback, allow_head=False),
        ]

    def endpoints(self) -> list[Endpoint]:
        """The entries of the API's description."""
        return [
            Endpoint(
                method="GET",
                path="/auth/login",
                name="signIn",
                tag="sign-in",
                summary="Sign in at the identity provider",
                access=Access.ANYBODY,
                parameters=[_RETURN_TO],
                answers={302: Answer("Redirect to the identity provider", headers=[_LOCATION])},
                errors=(ProviderUnavailableError,),
            ),
            Endpoint(
                method="GET",
                path=_CALLBACK,
                name="finishSignIn",
                tag="sign-in",
                summary="The return from the identity provider",
                access=Access.ANYBODY,
                parameters=_CALLBACK_PARAMETERS,
                answers={302: Answer("Signed in; redirect to `returnTo`", headers=[_LOCATION])},
                errors=(
                    SignInFailedError,
                    InvalidFieldError,
                    ProviderUnavailableError,
                    OutboxUnavailableError,
                ),
            ),
        ]

    async def login(self, request: web.Request) -> web.Response:
        """Redirect the browser to the provider. `returnTo` is a path of this service."""
        redirect_uri = f"{self._origin(request)}{_CALLBACK}"
        attempt = begin_attempt(redirect_uri, request.query.get("returnTo", "/"))
        answer = _redirect(await while_connected(request, self._oidc.begin(attempt)))
        self._cookie.save(answer, attempt)
        return answer

    async def callback(self, request: web.Request) -> web.Response:
        """Finish this browser's sign-in with a new session and redirect it to `returnTo`."""
        attempt = self._cookie.load(request)
        if attempt is None:
            raise SignInFailedError("This sign-in was not started in this browser. Start again.")
        user = await while_connected(request, self._oidc.finish(attempt, request.query))
        await self._sessions.sign_in(request, user)
        answer = _redirect(attempt.return_to)
        self._cookie.clear(answer)
        return answer

    def _origin(self, request: web.Request) -> str:
        origin = self._proxies.origin(request)
        return "https://" + origin.partition("://")[2] if self._secure else origin


def _redirect(location: str) -> web.Response:
    return web.Response(status=302, headers={hdrs.LOCATION: location})
