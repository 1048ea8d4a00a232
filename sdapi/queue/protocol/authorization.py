"""Who may use a service: its token in any form, or a signature made with it (contract 3.1)."""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence

from sdapi.errors import Unauthorized
from sdapi.security import Credentials

REFUSED = "Authorization Failed"
_SIGNED = "EAS "


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether the request brings a signature, which is checked against its body."""
    return headers.get("authorization", "").startswith(_SIGNED)


def authorize(credentials: Credentials, service: str, headers: Mapping[str, str]) -> None:
    """Check a token; raises `Unauthorized`."""
    try:
        credentials.check(headers.get("authorization"), service)
    except Unauthorized as error:
        raise Unauthorized(REFUSED) from error


def authorize_signed(
    credentials: Credentials,
    service: str,
    headers: Mapping[str, str],
    paths: Sequence[str],
    body: bytes,
) -> None:
    """Check `EAS <signature>`; raises `Unauthorized`.

    Signed are the MD5 of the body, the content type, the date, and the path of the service or one
    of `paths`: clients sign more or less of the request's. The date is a local clock labelled GMT,
    so its age tells nothing.
    """
    tokens = credentials.tokens_for(service)
    if not tokens and credentials.is_open:
        return
    offered = headers["authorization"].removeprefix(_SIGNED).strip()
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    content_type, date = headers.get("content-type", ""), headers.get("date", "")
    is_good = False
    for resource in (f"/api/predict/{service}", *paths):
        text = f"POST\n{digest}\n{content_type}\n{date}\n{resource}".strip()
        for token in tokens:
            signature = signed(token, text)
            is_good |= hmac.compare_digest(signature.encode(), offered.encode(errors="replace"))
    if not is_good:
        raise Unauthorized(REFUSED)


def signed(token: str, text: str) -> str:
    """Base64 of HMAC-SHA1, as the original's clients make it."""
    return base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()
