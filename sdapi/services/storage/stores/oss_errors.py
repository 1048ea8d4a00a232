"""Errors of `oss2` as reasons and sentences."""

import datetime
import email.utils
from typing import Any

from sdapi.object_url import ObjectUrl
from sdapi.services.storage.stores.store import Reason, StoreError

_REQUEST_ERROR, _INCONSISTENT = -2, -3
_THROTTLED = (429,)
_REASONS = {
    "InvalidAccessKeyId": (
        Reason.CREDENTIALS,
        "the access key id is not known (OSS_ACCESS_KEY_ID)",
    ),
    "SignatureDoesNotMatch": (
        Reason.CREDENTIALS,
        "the signature is wrong: OSS_ACCESS_KEY_SECRET does not belong to the key id, or "
        "OSS_REGION is not the bucket's",
    ),
    "InvalidSecurityToken": (
        Reason.CREDENTIALS,
        "the STS token is not valid for this key (OSS_SESSION_TOKEN)",
    ),
    "SecurityTokenExpired": (
        Reason.CREDENTIALS,
        "the STS token has expired: start with a new one (OSS_SESSION_TOKEN)",
    ),
    "SecurityTokenNotSupported": (Reason.CREDENTIALS, "this key takes no STS token"),
    "UserDisable": (Reason.CREDENTIALS, "the account is disabled"),
    "NoSuchBucket": (Reason.NO_BUCKET, "there is no such bucket at this endpoint"),
    "NoSuchKey": (Reason.MISSING, "there is no such object"),
    "FileAlreadyExists": (Reason.EXISTS, "there is another object of this name"),
    "ObjectAlreadyExists": (Reason.EXISTS, "there is another object of this name"),
    "InvalidObjectName": (Reason.BAD_NAME, "the store takes no object of this name"),
    "InvalidBucketName": (Reason.NO_BUCKET, "the store has no bucket of this name"),
    "InvalidDigest": (Reason.DAMAGED, "the bytes that arrived are not those that were sent"),
    "BadDigest": (Reason.DAMAGED, "the bytes that arrived are not those that were sent"),
    "RequestTimeout": (Reason.UNREACHABLE, "the store got no complete request in time"),
    "NoSuchUpload": (Reason.UNREACHABLE, "the store has forgotten the upload's parts"),
}


def store_error(error: Any, url: ObjectUrl, endpoint: str) -> StoreError:
    """The reason and the sentence of an `oss2.exceptions.OssError`."""
    status, code = error.status, error.code

    def because(reason: Reason, sentence: str) -> StoreError:
        told = f" ({code})" if code else ""
        return StoreError(reason, f"{url}: {sentence}{told}")

    if status == _REQUEST_ERROR:
        cause = type(getattr(error, "exception", error)).__name__
        return because(Reason.UNREACHABLE, f"{endpoint} gives no answer: {cause}")
    if status == _INCONSISTENT:
        return because(Reason.DAMAGED, "the checksum of what arrived is not that of what was sent")
    if code == "RequestTimeTooSkewed":
        return because(Reason.CLOCK, _clock_sentence(error.headers))
    if code == "AccessDenied":
        return because(Reason.FORBIDDEN, _denied_sentence(error, endpoint))
    if code == "InvalidArgument" and "region" in error.message.lower():
        return because(Reason.CREDENTIALS, "OSS_REGION is not the bucket's")
    if code in _REASONS:
        return because(*_REASONS[code])
    if status >= 500 or status in _THROTTLED:
        return because(Reason.UNREACHABLE, f"the store answered {status}")
    if status == 404:
        return because(Reason.MISSING, "there is no such object")
    if status == 403:
        return because(Reason.FORBIDDEN, "the store refuses this key")
    return because(Reason.REFUSED, f"the store answered {status}: {error.message[:200]}")


def _clock_sentence(headers: Any) -> str:
    """How far the clocks are apart, where the answer tells its time."""
    sentence = "this machine's clock and the store's are too far apart"
    try:
        theirs = email.utils.parsedate_to_datetime(headers.get("Date", ""))
    except (TypeError, ValueError):
        return f"{sentence}; set the clock"
    off_s = (datetime.datetime.now(datetime.UTC) - theirs).total_seconds()
    return f"{sentence}: ours is {abs(off_s):.0f} s {'ahead' if off_s > 0 else 'behind'}; set it"


def _denied_sentence(error: Any, endpoint: str) -> str:
    """No permission, the wrong endpoint, or an old signature: OSS calls them all AccessDenied."""
    if right := error.details.get("Endpoint"):
        return f"the bucket is not at {endpoint} but at {right} (OSS_ENDPOINT)"
    message = error.message or "no permission"
    if "expired" in message.lower():
        return f"the signature or its token has expired: {message[:120]}"
    return f"the key has no permission for this: {message[:120]}"
