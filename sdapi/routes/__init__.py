"""HTTP to service calls: validate, call one method, shape the answer."""

from typing import Annotated

from fastapi import Depends, Request

from sdapi.services.container import Services


def services_of(request: Request) -> Services:
    """The services of the application a request came to."""
    return request.app.state.services


ServicesDep = Annotated[Services, Depends(services_of)]
