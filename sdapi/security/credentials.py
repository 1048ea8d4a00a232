"""Who may call."""

import base64
import binascii
import hashlib
import hmac
from http.cookies import CookieError, SimpleCookie

from sdapi.errors import Unauthorized
from sdapi.security.sessions import SESSION_COOKIE, Sessions
from sdapi.settings import Settings

NOT_AUTHENTICATED = "Not authenticated"
WRONG_PASSWORD = "Incorrect username or password"
INVALID_CREDENTIALS = "Invalid authentication credentials"


class Credentials:
    """Checks `Authorization` headers: basic (`--api-auth`), a bare token, or `Bearer <token>`.

    The token is also taken as the password of basic authentication, under any user name, because
    a browser can send it in no other way. With both kinds configured either is enough; with none
    the server is open. A check compares with every configured value, in constant time, so that
    neither names nor lengths can be probed.
    """

    def __init__(self, settings: Settings) -> None:
        self._users = [(_bytes(user), _bytes(password)) for user, password in settings.api_auth]
        self._token = settings.token
        self._service_tokens = dict(settings.service_tokens)
        self._sessions = Sessions()

    @property
    def is_open(self) -> bool:
        """True when no credential is configured for the server as a whole."""
        return not self._users and self._token is None

    def check(self, authorization: str | None, service: str | None = None) -> None:
        """Raise Unauthorized unless the header is good for the server, or for the named service.

        A service with a token of its own is never open, and takes the server's credentials too.
        """
        tokens = self.tokens_for(service)
        if not tokens and not self._users:
            return
        if not authorization:
            raise Unauthorized(NOT_AUTHENTICATED)
        if _is_token(authorization, tokens):
            return
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() != "basic":
            raise Unauthorized(INVALID_CREDENTIALS if tokens else NOT_AUTHENTICATED)
        user, password = _decode_basic(value)
        is_token = _is_any(tokens, [password])
        if not (self._is_user(user, password) or is_token):
            raise Unauthorized(WRONG_PASSWORD if self._users else INVALID_CREDENTIALS)

    def user_of(self, authorization: str | None) -> str | None:
        """The user name of a valid basic header; None for a token and for an open server."""
        scheme, _, value = (authorization or "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            user, password = _decode_basic(value)
        except Unauthorized:
            return None
        return user.decode(errors="replace") if self._is_user(user, password) else None

    def log_in(self, user: str, password: str) -> str | None:
        """A session for the right name and password, as the value of a cookie."""
        return self._sessions.open(user) if self._is_user(_bytes(user), _bytes(password)) else None

    def user_of_cookies(self, cookies: str | None) -> str | None:
        """The user of the session in a `Cookie` header."""
        try:
            morsel = SimpleCookie(cookies or "").get(SESSION_COOKIE)
        except CookieError:
            return None
        return self._sessions.user_of(morsel.value) if morsel is not None else None

    def tokens_for(self, service: str | None) -> list[str]:
        """Every token that opens a service; for signatures, which need the token itself."""
        own = self._service_tokens.get(service) if service is not None else None
        return [token for token in (self._token, own) if token is not None]

    def _is_user(self, user: bytes, password: bytes) -> bool:
        found = False
        for known_user, known_password in self._users:
            same_user = _same(user, known_user)
            same_password = _same(password, known_password)
            found |= same_user & same_password
        return found


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")


def _same(offered: bytes, known: bytes) -> bool:
    """Equal? Compared as digests, because the plain comparison tells lengths by its time."""
    return hmac.compare_digest(hashlib.sha256(offered).digest(), hashlib.sha256(known).digest())


def _header_bytes(header: str) -> bytes:
    """The bytes that came over the wire: servers hand headers on as Latin-1."""
    try:
        return header.encode("latin-1")
    except UnicodeEncodeError:
        return _bytes(header)


def _is_token(authorization: str, tokens: list[str]) -> bool:
    scheme, _, value = authorization.partition(" ")
    texts = [authorization, value.strip()] if scheme.lower() == "bearer" else [authorization]
    # Clients send a token beyond ASCII as UTF-8 or as Latin-1.
    return _is_any(tokens, [e(text) for text in texts for e in (_header_bytes, _bytes)])


def _is_any(tokens: list[str], offered: list[bytes]) -> bool:
    found = False
    for token in tokens:
        for candidate in offered:
            found |= _same(candidate, _bytes(token))
    return found


def _decode_basic(value: str) -> tuple[bytes, bytes]:
    try:
        decoded = base64.b64decode(_header_bytes(value.strip()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unauthorized(INVALID_CREDENTIALS) from error
    user, colon, password = decoded.partition(b":")
    if not colon:
        raise Unauthorized(INVALID_CREDENTIALS)
    return user, password
