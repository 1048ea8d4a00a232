"""Who sent a request: signatures of version 1 and 4, in headers and in URLs.

After the service's documentation ("Signature version 1", "Signature version 4"), and without
looking at how clients make them.
"""

import base64
import datetime
import email.utils
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_plus

MAX_SKEW_S = 15 * 60
V4 = "OSS4-HMAC-SHA256"

#: the parameters that version 1 signs as part of the resource
_SUBRESOURCE_TEXT = """
acl append bucketInfo callback callback-var cname comp continuation-token cors delete
encryption endTime inventory inventoryId lifecycle live location logging objectMeta
partNumber policy position qos qosInfo referer replication requestPayment restore
security-token sequential startTime stat status style styleName symlink tagging tier
transferAcceleration uploadId uploads versionId versioning versions vod website worm wormId
x-oss-ac-source-ip x-oss-process x-oss-request-payer x-oss-traffic-limit
response-cache-control response-content-disposition response-content-encoding
response-content-language response-content-type response-expires
"""
_SUBRESOURCES = frozenset(_SUBRESOURCE_TEXT.split())


class Rejected(Exception):
    """A request that the service does not take, with the status and code that it says."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Key:
    """An access key; one of STS comes with a token that ends."""

    id: str
    secret: str
    token: str | None = None
    token_ends: datetime.datetime | None = None
    #: what its owner may do: "read", "write", "list"
    rights: frozenset[str] = frozenset({"read", "write", "list"})


@dataclass(frozen=True)
class Request:
    """What is signed of a request. Header names are in lower case."""

    method: str
    bucket: str
    key: str
    raw_query: str
    headers: Mapping[str, str]
    query: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        pairs = (part.partition("=") for part in self.raw_query.split("&") if part)
        query = {unquote_plus(name): unquote_plus(value) for name, _, value in pairs}
        object.__setattr__(self, "query", query)


def identify(
    request: Request, keys: Mapping[str, Key], region: str, now: datetime.datetime
) -> Key | None:
    """Whose request this is, None for nobody's; raises `Rejected`."""
    authorization = request.headers.get("authorization", "")
    if authorization.startswith(V4):
        return _version_4_header(request, authorization, keys, region, now)
    if authorization.startswith("OSS "):
        return _version_1_header(request, authorization, keys, now)
    if authorization:
        raise Rejected(400, "InvalidArgument", "Unsupported authorization type.")
    if request.query.get("x-oss-signature-version") == V4:
        return _version_4_url(request, keys, region, now)
    if "Signature" in request.query:
        return _version_1_url(request, keys, now)
    return None


# --- version 1 -------------------------------------------------------------------------------


def _version_1_header(
    request: Request, authorization: str, keys: Mapping[str, Key], now: datetime.datetime
) -> Key:
    key_id, _, signature = authorization.removeprefix("OSS ").partition(":")
    key = _known(key_id, keys)
    date = request.headers.get("x-oss-date") or request.headers.get("date", "")
    try:
        sent = email.utils.parsedate_to_datetime(date)
    except ValueError:
        raise Rejected(403, "AccessDenied", "OSS authentication requires a valid Date.") from None
    _check_clock(sent, now)
    _check(signature, _signature_1(key, request, date), key_id)
    _check_token(key, request.headers.get("x-oss-security-token"), now)
    return key


def _version_1_url(request: Request, keys: Mapping[str, Key], now: datetime.datetime) -> Key:
    key = _known(request.query.get("OSSAccessKeyId", ""), keys)
    expires = request.query.get("Expires", "")
    if not expires.isdecimal() or now.timestamp() > int(expires):
        raise Rejected(403, "AccessDenied", "Request has expired.")
    _check(request.query["Signature"], _signature_1(key, request, expires), key.id)
    _check_token(key, request.query.get("security-token"), now)
    return key


def _signature_1(key: Key, request: Request, date: str) -> str:
    headers = request.headers
    text = "\n".join(
        [
            request.method,
            headers.get("content-md5", ""),
            headers.get("content-type", ""),
            date,
            _oss_headers(headers) + _resource(request),
        ]
    )
    digest = hmac.new(key.secret.encode(), text.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def _oss_headers(headers: Mapping[str, str]) -> str:
    names = sorted(name for name in headers if name.startswith("x-oss-"))
    return "".join(f"{name}:{headers[name].strip()}\n" for name in names)


def _resource(request: Request) -> str:
    path = f"/{request.bucket}/{request.key}" if request.bucket else "/"
    signed = sorted(name for name in request.query if name in _SUBRESOURCES)
    parts = [f"{n}={request.query[n]}" if request.query[n] else n for n in signed]
    return f"{path}?{'&'.join(parts)}" if parts else path


# --- version 4 -------------------------------------------------------------------------------


def _version_4_header(
    request: Request,
    authorization: str,
    keys: Mapping[str, Key],
    region: str,
    now: datetime.datetime,
) -> Key:
    fields = dict(
        part.strip().partition("=")[::2] for part in authorization.removeprefix(V4).split(",")
    )
    sent = _stamp(request.headers.get("x-oss-date", ""))
    _check_clock(sent, now)
    additional = [name for name in fields.get("AdditionalHeaders", "").lower().split(";") if name]
    key, scope = _scope(fields.get("Credential", ""), keys, region, sent)
    made = _signature_4(key, request, request.headers["x-oss-date"], scope, additional)
    _check(fields.get("Signature", ""), made, key.id)
    _check_token(key, request.headers.get("x-oss-security-token"), now)
    return key


def _version_4_url(
    request: Request, keys: Mapping[str, Key], region: str, now: datetime.datetime
) -> Key:
    query = request.query
    sent = _stamp(query.get("x-oss-date", ""))
    expires = query.get("x-oss-expires", "")
    if not expires.isdecimal() or now > sent + datetime.timedelta(seconds=int(expires)):
        raise Rejected(403, "AccessDenied", "Request has expired.")
    additional = [n for n in query.get("x-oss-additional-headers", "").lower().split(";") if n]
    key, scope = _scope(query.get("x-oss-credential", ""), keys, region, sent)
    made = _signature_4(key, request, query["x-oss-date"], scope, additional)
    _check(query.get("x-oss-signature", ""), made, key.id)
    _check_token(key, query.get("x-oss-security-token"), now)
    return key


def _scope(
    credential: str, keys: Mapping[str, Key], region: str, sent: datetime.datetime
) -> tuple[Key, list[str]]:
    key_id, *scope = credential.split("/")
    key = _known(key_id, keys)
    if len(scope) != 4 or scope[2:] != ["oss", "aliyun_v4_request"]:
        raise Rejected(400, "InvalidArgument", "Invalid credential scope in Authorization header.")
    if scope[0] != sent.strftime("%Y%m%d"):
        raise Rejected(400, "InvalidArgument", "Invalid signing date in Authorization header.")
    if scope[1] != region:
        raise Rejected(400, "InvalidArgument", "Invalid signing region in Authorization header.")
    return key, scope


def _signature_4(
    key: Key, request: Request, date: str, scope: list[str], additional: list[str]
) -> str:
    canonical = "\n".join(
        [
            request.method,
            _encoded(f"/{request.bucket}/{request.key}" if request.bucket else "/", safe="/"),
            _canonical_query(request),
            _canonical_headers(request.headers, additional),
            ";".join(sorted(additional)),
            request.headers.get("x-oss-content-sha256", "UNSIGNED-PAYLOAD"),
        ]
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join([V4, date, "/".join(scope), digest])
    secret = f"aliyun_v4{key.secret}".encode()
    for part in scope:
        secret = hmac.new(secret, part.encode(), hashlib.sha256).digest()
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def _canonical_query(request: Request) -> str:
    pairs = sorted(
        (_encoded(name), _encoded(value))
        for name, value in request.query.items()
        if name != "x-oss-signature"
    )
    return "&".join(f"{name}={value}" if value else name for name, value in pairs)


def _canonical_headers(headers: Mapping[str, str], additional: list[str]) -> str:
    signed = {"content-type", "content-md5", *additional}
    names = sorted(n for n in headers if n.startswith("x-oss-") or n in signed)
    return "".join(f"{name}:{headers[name].strip()}\n" for name in names)


def _encoded(text: str, safe: str = "") -> str:
    return quote(text, safe=safe + "-_.~")


def _stamp(text: str) -> datetime.datetime:
    try:
        found = datetime.datetime.strptime(text, "%Y%m%dT%H%M%SZ")
    except ValueError:
        raise Rejected(403, "AccessDenied", "Invalid x-oss-date.") from None
    return found.replace(tzinfo=datetime.UTC)


# --- both ------------------------------------------------------------------------------------


def _known(key_id: str, keys: Mapping[str, Key]) -> Key:
    if key_id not in keys:
        message = "The OSS Access Key Id you provided does not exist in our records."
        raise Rejected(403, "InvalidAccessKeyId", message)
    return keys[key_id]


def _check(given: str, made: str, key_id: str) -> None:
    if not hmac.compare_digest(given.encode(), made.encode()):
        message = (
            "The request signature we calculated does not match the signature you provided. "
            f"Check your key and signing method. ({key_id})"
        )
        raise Rejected(403, "SignatureDoesNotMatch", message)


def _check_clock(sent: datetime.datetime, now: datetime.datetime) -> None:
    if abs((now - sent).total_seconds()) > MAX_SKEW_S:
        message = "The difference between the request time and the current time is too large."
        raise Rejected(403, "RequestTimeTooSkewed", message)


def _check_token(key: Key, token: str | None, now: datetime.datetime) -> None:
    if key.token is None and token is None:
        return
    if token is None or key.token != token:
        message = "The security token you provided is invalid."
        raise Rejected(403, "InvalidSecurityToken", message)
    if key.token_ends is not None and now > key.token_ends:
        message = "The security token you provided has expired."
        raise Rejected(403, "SecurityTokenExpired", message)
