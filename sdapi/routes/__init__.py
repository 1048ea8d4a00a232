"""HTTP to service calls: validate, call one method, shape the answer."""

from typing import Annotated, Any

from fastapi import Depends, Request

from sdapi.services.container import Services
from sdapi.services.generation.order import Caller


def services_of(request: Request) -> Services:
    """The services of the application a request came to."""
    return request.app.state.services


ServicesDep = Annotated[Services, Depends(services_of)]


def caller_of(request: Request, services: Services) -> Caller:
    """Who sent a request, and how to learn that they went away."""
    return Caller(
        services.credentials.user_of(request.headers.get("authorization")),
        lambda: _disconnected(request),
        request.headers.get("x-sdapi-webhook"),
    )


async def _disconnected(request: Request) -> Any:
    """Return when the client has closed the connection; its body has been read by now."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
