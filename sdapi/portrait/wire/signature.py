"""The signature of the REST surface: HMAC-SHA256 over method, body's MD5 and path.

Bodies are signed as raw bytes: clients differ in spaces, escapes and a line feed at the end, so a
body is never written anew to verify it.
"""

import hashlib
import hmac
from urllib.parse import unquote_plus


def sign(token: str, method: str, target: str, body: bytes) -> str:
    """The signature of a request to `target`, a path with its query as the client signs it."""
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    text = f"{method.upper()}\n{digest}\n{target}"
    return hmac.new(token.encode(), text.encode(errors="surrogateescape"), "sha256").hexdigest()


def is_signed(offered: str, token: str, method: str, path: str, query: str, body: bytes) -> bool:
    """Whether a signature is right, compared in constant time.

    `path` and `query` are as they came over the wire. A query may be signed decoded or not, or, as
    one client does, not at all; nothing of this API reads one.
    """
    good = False
    for target in signed_targets(path, query):
        expected = sign(token, method, target, body)
        good |= hmac.compare_digest(offered.encode(errors="replace"), expected.encode())
    return good


def signed_targets(path: str, query: str) -> list[str]:
    """The texts that clients sign for a path and its query."""
    first: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        first.setdefault(name, value)
    first.pop("sign", None)
    pairs = [f"{name}={first[name]}" for name in sorted(first)]
    if not pairs:
        return [path]
    raw = f"{path}?{'&'.join(pairs)}"
    return list(dict.fromkeys([path, raw, unquote_plus(raw)]))
