"""CORS: which pages of other origins may call."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import Message, Receive, Scope, Send


class CrossOrigin(CORSMiddleware):
    """Starlette's, quick about requests that no page of another origin sent: most of all."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or any(name == b"origin" for name, _ in scope["headers"]):
            await super().__call__(scope, receive, send)
            return

        async def varying(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                vary = [value for name, value in headers if name.lower() == b"vary"]
                others = [header for header in headers if header[0].lower() != b"vary"]
                own = (b"vary", b", ".join([*vary, b"Origin"]))
                message = {**message, "headers": [*others, own]}
            await send(message)

        await self.app(scope, receive, varying)
