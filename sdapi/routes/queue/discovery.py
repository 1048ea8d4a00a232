"""Where a service answers, for clients that ask first."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from sdapi.errors import SDAPIError
from sdapi.routes.queue.calls import json_answer, text_error

router = APIRouter(include_in_schema=False)


@router.get("/api/v1/servicediscovery/upstreams/{service}")
@router.get("/exported/apis/eas.alibaba-inc.k8s.io/v1/upstreams/{service}")
async def discover(service: str, request: Request) -> Response:
    """Where a service answers: at the address that was asked."""
    try:
        request.app.state.queues.service.spec(service)
    except SDAPIError as error:
        return text_error(error)
    host, port = request.scope.get("server") or ("127.0.0.1", 80)
    ip = request.url.hostname or host
    item = {"ip": ip, "port": request.url.port or port, "weight": 100}
    return json_answer({"endpoints": {"items": [item]}})
