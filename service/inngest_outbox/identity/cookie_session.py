"""The service's own session cookie: one signed-in user, encrypted under a list of keys.

The first secret encrypts and every secret decrypts, so secrets rotate without signing anyone out. A
cookie with any other content counts as no session, never as an error. The cookie keeps the time of
the sign-in: it ends 90 days later, however often it is renewed.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Sequence

import msgspec
from aiohttp import web
from aiohttp_session import Session
from aiohttp_session.cookie_storage import EncryptedCookieStorage
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from inngest_outbox.errors import InvalidFieldError
from inngest_outbox.identity.cookies import cookie_header, host_cookie_name, parse_cookies
from inngest_outbox.identity.user import User

_DAY_SECONDS = 86400
MAX_AGE_SECONDS = 30 * _DAY_SECONDS
MAX_SESSION_SECONDS = 90 * _DAY_SECONDS
REISSUE_AFTER_SECONDS = _DAY_SECONDS
_MAX_COOKIE_BYTES = 4096
_NAME = "outbox_session"
# Base64 decoders ignore what follows the padding.
_is_token = re.compile(r"[\w-]+={0,2}", re.ASCII).fullmatch

_encode = msgspec.json.Encoder().encode


class SignedIn(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A session: its user, its start in wall seconds, and the revision that it is valid for."""

    user: User
    signed_in_at: int
    revision: str = ""


class _Content(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    issued_at: int
    session: SignedIn


_decoder = msgspec.json.Decoder(_Content)


def derive_fernets(secrets: Sequence[str], purpose: str) -> tuple[Fernet, ...]:
    """One key for each secret. A key for one `purpose` opens nothing of another."""
    return tuple(Fernet(_derive(secret, purpose)) for secret in secrets)


def _derive(secret: str, purpose: str) -> bytes:
    hkdf = HKDF(hashes.SHA256(), length=32, salt=None, info=f"inngest-outbox {purpose}".encode())
    return base64.urlsafe_b64encode(hkdf.derive(secret.encode()))


class CookieSessionStorage(EncryptedCookieStorage):
    """aiohttp-session's encrypted cookie, for a list of secrets and exactly one user.

    A loaded session has `session` (a SignedIn), `user`, and `good_until` in wall seconds: until
    then the cookie gives the same user and need not be renewed. A cookie that is older than a day,
    or encrypted under an older secret, is renewed with the answer.
    """

    def __init__(
        self, secrets: Sequence[str], *, secure: bool, clock: Callable[[], float] = time.time
    ) -> None:
        self._fernets = derive_fernets(secrets, "session cookie")
        self._clock = clock
        super().__init__(
            self._fernets[0],
            cookie_name=host_cookie_name(_NAME, secure=secure),
            secure=secure,
            samesite="Lax",
        )

    def begin(self, user: User, revision: str) -> SignedIn:
        """A session of `user` that begins now.

        Raises InvalidFieldError when the cookie would be too large for browsers.
        """
        session = SignedIn(user, int(self._clock()), revision)
        if len(self.cookie_name) + len(self.seal(session)) > _MAX_COOKIE_BYTES:
            raise InvalidFieldError("The user's id, e-mail and name are too long for a session.")
        return session

    def seal(self, session: SignedIn) -> str:
        """The cookie's value for `session`, issued now."""
        now = int(self._clock())
        content = _encode(_Content(now, session))
        return self._fernets[0].encrypt_at_time(content, now).decode()

    async def load_session(self, request: web.Request) -> Session:
        """The session in the request's cookie; an empty one without an authentic cookie."""
        cookie = parse_cookies(cookie_header(request)).get(self.cookie_name, "")
        for fernet in self._fernets:
            content = self._open(fernet, cookie)
            if content is not None:
                return self._session(content, current=fernet is self._fernets[0])
        return await self.new_session()

    async def save_session(
        self, request: web.Request, response: web.StreamResponse, session: Session
    ) -> None:
        """Set the cookie for the session's user, or remove it when the session is empty."""
        del request
        if session.empty:
            self.save_cookie(response, "")
            return
        signed_in: SignedIn = session["session"]
        seconds_left = int(signed_in.signed_in_at + MAX_SESSION_SECONDS - self._clock())
        self.save_cookie(response, self.seal(signed_in), max_age=min(MAX_AGE_SECONDS, seconds_left))

    def save_cookie(
        self, response: web.StreamResponse, cookie_data: str, *, max_age: int | None = None
    ) -> None:
        """Set the cookie, or remove it when there is no data."""
        if cookie_data:
            super().save_cookie(response, cookie_data, max_age=max_age)
            return
        # Browsers ignore the removal of a __Host- cookie that is not itself Secure.
        response.del_cookie(
            self.cookie_name,
            path="/",
            secure=self.cookie_params["secure"],
            httponly=True,
            samesite="Lax",
        )

    def _open(self, fernet: Fernet, cookie: str) -> _Content | None:
        if not _is_token(cookie):
            return None
        now = int(self._clock())
        try:
            content = _decoder.decode(fernet.decrypt_at_time(cookie, MAX_AGE_SECONDS, now))
        except (InvalidToken, msgspec.MsgspecError, ValueError):
            return None
        return content if now < _ends_at(content) else None

    def _session(self, content: _Content, *, current: bool) -> Session:
        reissue_at = content.issued_at + REISSUE_AFTER_SECONDS if current else 0
        good_until = min(reissue_at, _ends_at(content))
        signed_in = content.session
        held = {"session": signed_in, "user": signed_in.user, "good_until": good_until}
        session = Session(None, data={"session": held}, new=False)
        if good_until <= self._clock():
            session.changed()
        return session


def _ends_at(content: _Content) -> int:
    return min(
        content.issued_at + MAX_AGE_SECONDS, content.session.signed_in_at + MAX_SESSION_SECONDS
    )
