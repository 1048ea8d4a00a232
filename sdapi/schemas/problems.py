"""The shapes of errors, for the API's description."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Problem(BaseModel):
    """Every error but those of a field's type."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": "HTTPException",
                    "detail": "Sampler not found",
                    "body": "",
                    "errors": "",
                    "code": "sampler_not_found",
                    "request_id": "9ae862254e4f42eabd64358dd3b7046a",
                }
            ]
        }
    )
    error: str = Field(description="HTTPException, or a defect's class name")
    detail: str = Field(description="What was wrong, and what would be right")
    body: str = Field(description="Empty, as in the webui")
    errors: str = Field(description="Empty but for a defect, as in the webui")
    code: str = Field(description="Stable, for programs")
    request_id: str = Field(description="As in the header X-Request-Id and in the log")
    hint: str = Field(
        "", description="The field and its trouble, where `detail` names none; or absent"
    )


class FieldProblem(BaseModel):
    """One field that has the wrong type or is out of its bounds."""

    loc: list[str | int] = Field(description="Where it is", examples=[["body", "steps"]])
    msg: str = Field(description="What was wrong", examples=["value is not a valid integer"])
    type: str = Field(description="The kind of problem", examples=["type_error.integer"])


class FieldProblems(BaseModel):
    """Fields of the wrong type."""

    detail: list[FieldProblem]


_MEANINGS = {
    400: "Unknown sampler",
    403: "A path outside the allowed folders",
    404: "Not there",
    409: "Cancelled before it began, or its id is in use",
    422: "A field of the wrong type (`detail` is a list), or a value that cannot be (a text)",
    429: "The queue is full; see Retry-After",
    501: "Not available here; names the field",
    503: "A model or device is not there, or the server is stopping; names what is missing",
    507: "No memory or disk left for it",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may fail with these statuses, besides 422."""
    return {status: _described(status) for status in _with_422(statuses)}


def _with_422(statuses: Iterable[int]) -> list[int]:
    return sorted({*statuses, 422})


def _described(status: int) -> dict[str, Any]:
    model: Any = Problem | FieldProblems if status == 422 else Problem
    return {"model": model, "description": _MEANINGS.get(status, HTTPStatus(status).phrase)}
