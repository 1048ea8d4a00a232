"""A store's errors for whoever named the object."""

from sdapi.errors import BadUrl, SDAPIError, StoreRefused, StoreUnavailable
from sdapi.services.storage.stores.store import Reason, StoreError

_CALLERS = (Reason.MISSING, Reason.TOO_LARGE, Reason.BAD_NAME)


def as_client_error(error: StoreError, field: str) -> SDAPIError:
    """What a request answers with whose field named an object that could not be read."""
    if error.reason in _CALLERS:
        return BadUrl(f"{field} {error}")
    if error.is_passing:
        return StoreUnavailable(f"{field} {error}")
    return StoreRefused(f"{field} {error}")
