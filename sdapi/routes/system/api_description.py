"""What `/docs` says besides the routes themselves."""

from typing import Any, Final

DESCRIPTION: Final = """
The API of the Stable Diffusion WebUI 1.10.1, with the EAS additions to it.

**To try it:** open `POST /sdapi/v1/txt2img`, *Try it out*, *Execute*. `images` holds pictures in
base64.

**Credentials.** With `--api-auth` a browser asks for a name and a password; with `--token` for any
name and the token as password. Programs send `Authorization`: basic, or the token, bare or after
`Bearer`.

**Errors** have a `detail` that says what was wrong and what would be right, a `code` for programs
and the `request_id` of the log; a field of the wrong type is told as the webui does. No mistake of
a client is a 5xx.

**Tasks.** Every generation has an id: `force_task_id`, or one of ours. Under it are its progress,
as JSON, as events and at the websocket `/sdapi/v1/progress/ws?id_task=`, and its cancellation.

The asynchronous queue below `/api/predict/{service}` speaks the EAS protocol (`docs/queue.md`): it
answers errors as a line of text. Portraits below `/api/v1` are asked for with a signature.
"""
TAGS: Final[list[dict[str, Any]]] = [
    {"name": "generation", "description": "Draw pictures"},
    {"name": "pictures", "description": "Enlarge, restore, read and describe pictures"},
    {"name": "controlnet", "description": "ControlNet's models and preprocessors"},
    {"name": "progress", "description": "Follow tasks, and stop them"},
    {"name": "catalog", "description": "Checkpoints, VAEs, samplers, styles"},
    {"name": "networks", "description": "LoRAs, hypernetworks, embeddings"},
    {"name": "options", "description": "What holds for all requests that do not say otherwise"},
    {"name": "scripts", "description": "Scripts and extensions, with their arguments"},
    {"name": "server", "description": "Memory, and stopping the server (`--api-server-stop`)"},
    {"name": "system", "description": "For load balancers and monitoring"},
    {"name": "page", "description": "What programs ask of the webui's page; not with `--nowebui`"},
]
