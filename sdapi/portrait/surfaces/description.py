"""The signed REST calls for the API's description: one route takes all of them."""

from typing import Any, Final

TAG: Final = {
    "name": "portrait",
    "description": (
        "Portraits of trained people. `/api/v1` takes an account's signature as its only "
        "credential: `Authorization: <AppId>:<hex HMAC-SHA256>` (`docs/portrait.md`)"
    ),
}

_TEXT: Final = {"type": "string"}
_URLS: Final = {"type": "array", "items": {"type": "string", "format": "uri"}, "maxItems": 50}
_CONFIGURE: Final = {"type": "object", "description": "`docs/portrait.md` has its fields"}
_NAME: Final = {"type": "string", "default": "", "description": "Empty for SD 1.5"}
_SIGNATURE: Final = {
    "name": "Authorization",
    "in": "header",
    "required": True,
    "description": "AppId, a colon, and the signature of method, body and path",
    "schema": _TEXT,
}
_MEANINGS: Final = {
    "400": "`not found appid`, `exceeded quota`",
    "401": "`sign error`",
    "404": "`model not found`: no such model, or no base checkpoint for it; `job not found`",
    "413": "The body is larger than any call needs",
    "429": "No place now; see Retry-After. It costs no quota",
    "462": "Something in the body cannot be used; `message` says what",
    "469": "It failed while training or drawing; `message` says where",
    "500": "The reference face of a model cannot be read",
    "503": "No device, or the server is stopping; see Retry-After",
}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    needed = {"required": list(required)} if required else {}
    return {"type": "object", "properties": properties, **needed}


def _answer(meaning: str, data: dict[str, Any]) -> dict[str, Any]:
    envelope = _object(
        ("request_id", "code", "message", "data"),
        request_id=_TEXT,
        code={"type": "string", "description": "OK, or the kind of fault"},
        message=_TEXT,
        data=data,
    )
    return {"description": meaning, "content": {"application/json": {"schema": envelope}}}


def _operation(
    summary: str,
    description: str,
    data: dict[str, Any],
    failures: tuple[str, ...],
    *,
    body: dict[str, Any] | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    named = [] if name is None else [_path_parameter(name)]
    told = ("400", "401", "413", *failures)
    return {
        "tags": [TAG["name"]],
        "summary": summary,
        "description": description,
        "parameters": [*named, _SIGNATURE],
        **({} if body is None else {"requestBody": _body(body)}),
        "responses": {"200": _answer("`code` is OK", data)}
        | {status: _answer(_MEANINGS[status], {"type": "object"}) for status in sorted(told)},
    }


def _path_parameter(name: str) -> dict[str, Any]:
    meaning = "The number that a training answered" if name == "job_id" else "A trained model's id"
    return {"name": name, "in": "path", "required": True, "description": meaning, "schema": _TEXT}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


_JOB: Final = _object(
    job=_object(
        id={"type": "integer"},
        app_id=_TEXT,
        state={"type": "integer", "description": "0 waits, 1 runs, 2 succeeded, 3 failed"},
        message=_TEXT,
        create_time=_TEXT,
        Result={"type": "string", "description": "JSON; empty until it is over"},
        type=_TEXT,
    )
)
_ASK: Final = "The state of a training, and its result once it is over. It costs no quota."
_WORK: Final = ("404", "429", "462", "469", "503")

PATHS: Final[dict[str, Any]] = {
    "/api/v1/aigc_images/check": {
        "post": _operation(
            "Check photos",
            "Whether each photo shows one face, and all of them one person.",
            _object(
                check_results={"type": "array", "items": {"type": "object"}},
                cost_time={"type": "number"},
                images=_URLS,
                request_id=_TEXT,
            ),
            ("404", "429", "462", "503"),
            body=_object(("images",), images=_URLS, model_name=_NAME, configure=_CONFIGURE),
        )
    },
    "/api/v1/aigc_images/train": {
        "post": _operation(
            "Train a person",
            "Begin to train on photos; the answer names the job to ask for.",
            _object(job_id={"type": "integer"}, model_id=_TEXT),
            ("404", "429", "462", "503"),
            body=_object(
                ("images",),
                images=_URLS,
                model_name={**_NAME, "enum": ["", "train_xl"]},
                configure=_CONFIGURE,
            ),
        )
    },
    "/api/v1/aigc_images/create": {
        "post": _operation(
            "Create a portrait",
            "Put trained people into a template; `image` is a JPEG in base64.",
            _object(cost_time={"type": "number"}, image=_TEXT, model_id=_TEXT),
            (*_WORK, "500"),
            body=_object(
                model_id=_TEXT,
                model_ids={
                    "type": "array",
                    "items": _TEXT,
                    "description": "Several: a group, its faces left to right",
                },
                template_image={"type": "string", "format": "uri"},
                model_name={**_NAME, "enum": ["", "create_xl"]},
                configure=_CONFIGURE,
            ),
        )
    },
    "/api/v1/async_jobs/{job_id}": {
        "get": _operation("Training's state", _ASK, _JOB, ("404",), name="job_id"),
        "post": _operation("Training's state, asked by POST", _ASK, _JOB, ("404",), name="job_id"),
    },
    "/api/v1/models/{model_id}": {
        "delete": _operation(
            "Delete a model",
            "Remove a model, its jobs and its photos. No SDK has this call.",
            _object(model_id=_TEXT),
            ("404",),
            name="model_id",
        )
    },
}
