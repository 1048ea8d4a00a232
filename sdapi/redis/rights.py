"""What a Redis user must be allowed to do for this server (docs/queue.md, Stores)."""

from typing import Final

from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from sdapi.errors import SDAPIError

#: rules of `ACL SETUSER`
RIGHTS: Final = (
    "~sdapi:* resetchannels &sdapi:events* "
    "+@connection +info +time +evalsha +script|load +publish +subscribe +unsubscribe "
    "+pubsub|numsub +@hash +@set +@sortedset +@string +del +exists"
)
#: how Redis says that a script's command is forbidden, up to 6.2 and from 7 on
_IN_SCRIPT: Final = ("The user executing the script can't", "ACL failure in script")


def why_unusable(error: BaseException) -> str:
    """A sentence for the operator on the error that keeps a server from using its Redis."""
    while isinstance(error, SDAPIError) and error.__cause__:  # a script's, for its caller
        error = error.__cause__
    if _is_forbidden(error):
        return f"Redis refuses its user: {error}. The user needs: {RIGHTS}"
    if isinstance(error, AuthenticationError | ResponseError):
        return f"Redis refuses: {error}"
    return f"Redis does not answer: {str(error) or type(error).__name__}"


def _is_forbidden(error: BaseException) -> bool:
    if isinstance(error, NoPermissionError):
        return True
    return isinstance(error, ResponseError) and any(sign in str(error) for sign in _IN_SCRIPT)
