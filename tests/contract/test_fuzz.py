"""Requests that the API's own description allows, and some that it does not: never a defect."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.fakes import FakeEngine

#: 501 and 503 say what is not there, 507 what does not fit; each with a code
DOCUMENTED = {501, 503, 507}
#: it follows a task as long as that takes
LEFT_OUT = {"/sdapi/v1/progress/events"}
EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=20),
)
_ANYTHING = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def values(schema: dict[str, Any], described: dict[str, Any], depth: int = 0) -> Any:
    """A strategy of values for a schema; one in several is something else."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return values(described["components"]["schemas"][name], described, depth + 1)
    if "anyOf" in schema:
        return st.one_of([values(each, described, depth) for each in schema["anyOf"]])
    kinds = {
        "string": st.text(max_size=30) | st.just("data:image/png;base64,AAAA"),
        "integer": st.integers(-2, 200) | st.integers(-(2**70), 2**70),
        "number": st.floats(-2, 200) | st.floats(allow_nan=False),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    kind = schema.get("type")
    if kind == "array":
        proper = st.lists(values(schema.get("items", {}), described, depth + 1), max_size=3)
    elif kind == "object" and "properties" in schema and depth < 4:
        fields = {
            key: values(each, described, depth + 1) for key, each in schema["properties"].items()
        }
        proper = st.dictionaries(st.sampled_from(sorted(fields)), st.none(), max_size=6).flatmap(
            lambda chosen: st.fixed_dictionaries({key: fields[key] for key in chosen})
        )
    else:
        proper = kinds.get(str(kind), _ANYTHING)
    return st.one_of(proper, proper, proper, _ANYTHING)


def operations(client: TestClient) -> list[tuple[str, str, dict[str, Any]]]:
    described = client.app.openapi()  # pyright: ignore
    return [
        (method, path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        if path not in LEFT_OUT
    ]


@pytest.mark.timeout(120)
def test_no_request_meets_a_defect(client: TestClient, engine: FakeEngine):
    described = client.app.openapi()  # pyright: ignore
    known = operations(client)
    listed = client.get("/sdapi/v1/scripts").json()
    names = [*listed["txt2img"], *listed["img2img"]]
    scripts = st.fixed_dictionaries(
        {"script_name": st.sampled_from(names), "script_args": st.lists(_ANYTHING, max_size=19)}
    )

    @EXAMPLES
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        method, path, operation = data.draw(st.sampled_from(known))
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        content = data.draw(values(body["schema"], described)) if body else None
        params = {
            each["name"]: data.draw(st.text(max_size=10))
            for each in operation.get("parameters", [])
            if data.draw(st.booleans())
        }
        if isinstance(content, dict) and path.endswith("2img"):
            # large pictures and many are slow, not wrong
            content |= {"width": 64, "height": 64, "batch_size": 1, "n_iter": 2}
            if data.draw(st.booleans()):
                content |= data.draw(scripts)
        response = client.request(
            method.upper(),
            path,
            params={key: value for key, value in params.items() if value.isprintable()},
            content=None if content is None else json.dumps(content).encode(),
            headers={"content-type": "application/json"},
            follow_redirects=False,
        )
        if response.status_code >= 500:
            assert response.status_code in DOCUMENTED, (method, path, content, response.text)
            assert path == "/readyz" or response.json()["code"] != "internal_error"

    ask()
