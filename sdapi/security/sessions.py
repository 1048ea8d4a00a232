"""Sessions of people who logged in with a form: a signed cookie, so that nothing is kept."""

import base64
import binascii
import hashlib
import hmac
import secrets
import time

SESSION_COOKIE = "access-token"
LIFETIME_S = 30 * 24 * 3600


class Sessions:
    """Makes and reads the values of the cookie; those of another process are worth nothing."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def open(self, user: str) -> str:
        """The cookie's value for a user who has just proved who they are."""
        expires = int(time.time()) + LIFETIME_S
        content = f"{base64.urlsafe_b64encode(user.encode()).decode()}.{expires}"
        return f"{content}.{self._sign(content)}"

    def user_of(self, value: str) -> str | None:
        """The user of a valid value that has not expired."""
        content, _, signature = value.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(content).encode()):
            return None
        name, _, expires = content.partition(".")
        try:
            if int(expires) < time.time():
                return None
            return base64.urlsafe_b64decode(name).decode()
        except (ValueError, binascii.Error):
            return None

    def _sign(self, content: str) -> str:
        return hmac.new(self._key, content.encode(), hashlib.sha256).hexdigest()
