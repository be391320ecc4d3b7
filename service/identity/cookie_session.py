"""The service's own session cookie: one signed-in user, encrypted under a list of keys.

The first secret of the list seals, every secret opens, so secrets rotate without signing anyone
out. A cookie that does not hold exactly what is sealed here is no session, never an error. The
cookie can't be revoked: whoever copies it is signed in until it is 30 days old.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence

import msgspec
from aiohttp import web
from aiohttp_session import Session
from aiohttp_session.cookie_storage import EncryptedCookieStorage
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.errors import InvalidFieldError
from service.identity.user import User

MAX_AGE_SECONDS = 30 * 86400
REISSUE_AFTER_SECONDS = 86400
_MAX_COOKIE_BYTES = 4096
_NAME = "outbox_session"

_encode = msgspec.json.Encoder().encode


class _Content(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    issued_at: int
    user: User


_decoder = msgspec.json.Decoder(_Content)


def derive_fernets(secrets: Sequence[str], purpose: str) -> tuple[Fernet, ...]:
    """One key for each secret; another `purpose` gives keys that can't stand in for these."""
    return tuple(Fernet(_derive(secret, purpose)) for secret in secrets)


def _derive(secret: str, purpose: str) -> bytes:
    hkdf = HKDF(hashes.SHA256(), length=32, salt=None, info=f"inngest-outbox {purpose}".encode())
    return base64.urlsafe_b64encode(hkdf.derive(secret.encode()))


def host_cookie_name(name: str, *, secure: bool) -> str:
    """`name` bound to exactly this host and to https by its prefix, where cookies are secure."""
    return f"__Host-{name}" if secure else name


class CookieSessionStorage(EncryptedCookieStorage):
    """aiohttp-session's encrypted cookie, for a list of secrets and exactly one user.

    A loaded session holds `user` (a User) and `good_until` (wall seconds: until then the same
    cookie gives the same user and need not be issued anew). A cookie older than a day, or one
    sealed under an older secret, is issued anew with the answer.
    """

    def __init__(
        self, secrets: Sequence[str], *, secure: bool, clock: Callable[[], float] = time.time
    ) -> None:
        self._fernets = derive_fernets(secrets, "session cookie")
        self._clock = clock
        super().__init__(
            self._fernets[0],
            cookie_name=host_cookie_name(_NAME, secure=secure),
            max_age=MAX_AGE_SECONDS,
            secure=secure,
            samesite="Lax",
        )

    def seal(self, user: User) -> str:
        """The cookie's value for `user`, issued now.

        Raises InvalidFieldError when browsers would drop the cookie for its size.
        """
        now = int(self._clock())
        value = self._fernets[0].encrypt_at_time(_encode(_Content(now, user)), now).decode()
        if len(self.cookie_name) + len(value) > _MAX_COOKIE_BYTES:
            raise InvalidFieldError("The user's id, e-mail and name are too long for a session.")
        return value

    async def load_session(self, request: web.Request) -> Session:
        """The session of the request's cookie; a new, empty one without an authentic cookie."""
        for fernet in self._fernets:
            content = self._open(fernet, self.load_cookie(request))
            if content is not None:
                return self._session(content, current=fernet is self._fernets[0])
        return await self.new_session()

    async def save_session(
        self, request: web.Request, response: web.StreamResponse, session: Session
    ) -> None:
        """Set the cookie for the session's user, or remove it when the session is empty."""
        del request
        value = "" if session.empty else self.seal(session["user"])
        self.save_cookie(response, value, max_age=self.max_age)

    def save_cookie(
        self, response: web.StreamResponse, cookie_data: str, *, max_age: int | None = None
    ) -> None:
        """Set the cookie; with no data remove it."""
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

    def _open(self, fernet: Fernet, cookie: str | None) -> _Content | None:
        if not cookie or len(cookie) > _MAX_COOKIE_BYTES or not cookie.isascii():
            return None
        now = int(self._clock())
        try:
            content = _decoder.decode(fernet.decrypt_at_time(cookie, MAX_AGE_SECONDS, now))
        except (InvalidToken, msgspec.MsgspecError, ValueError):
            return None
        return content if now - content.issued_at < MAX_AGE_SECONDS else None

    def _session(self, content: _Content, *, current: bool) -> Session:
        good_until = content.issued_at + REISSUE_AFTER_SECONDS if current else 0
        held = {"user": content.user, "good_until": good_until}
        session = Session(None, data={"session": held}, new=False)
        if good_until <= self._clock():
            session.changed()
        return session
