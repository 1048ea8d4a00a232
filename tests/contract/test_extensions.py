"""The extension of docs/extensions.md, and extensions that fail."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.contract.conftest import Serve
from tests.fakes import FakeEngine, colour_of
from tests.pictures import colour

DOCUMENT = Path(__file__).parents[2] / "docs" / "extensions.md"
SMALL = {"prompt": "a cat", "width": 64, "height": 64, "steps": 1, "seed": 1}


@pytest.fixture
def with_extension(data_dir: Path, serve: Serve) -> TestClient:
    """A server with the documented extension in its folder."""
    code = re.search(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.S)
    assert code
    add_file(data_dir, "grain", code[1])
    return serve()


def add_file(data_dir: Path, name: str, code: str) -> None:
    (data_dir / "extensions").mkdir(exist_ok=True)
    (data_dir / "extensions" / f"{name}.py").write_text(code, encoding="utf-8")


def draw(client: TestClient, **body: Any) -> Any:
    response = client.post("/sdapi/v1/txt2img", json=SMALL | body)
    assert response.status_code == 200, response.text
    return response.json()


def test_its_scripts_are_listed_with_their_arguments(with_extension: TestClient):
    names = with_extension.get("/sdapi/v1/scripts").json()["txt2img"]
    assert names.index("loud") < names.index("seed list") < names.index("refiner")
    info = with_extension.get("/sdapi/v1/script-info").json()
    loud = next(each for each in info if each["name"] == "loud")
    assert loud["is_alwayson"]
    assert loud["args"][1] == {
        "label": "Exclamation marks",
        "value": 1,
        "minimum": 1,
        "maximum": 5,
        "step": 1,
        "choices": None,
    }


@pytest.mark.parametrize("args", [[True, 2, "too many"], {"enabled": True, "marks": 2}])
def test_its_always_on_script_takes_a_list_or_an_object(with_extension: TestClient, args: Any):
    answer = draw(with_extension, alwayson_scripts={"LOUD": {"args": args}})
    assert json.loads(answer["info"])["prompt"] == "A CAT!!"
    assert "Loud: 2" in json.loads(answer["info"])["infotexts"][0]


def test_its_always_on_script_runs_with_defaults_unasked(with_extension: TestClient):
    assert json.loads(draw(with_extension)["info"])["prompt"] == "a cat"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"mark": 1}, "alwayson_scripts.loud.args: there is no argument 'mark'; near 'marks'"),
        ([True, 9], "alwayson_scripts.loud.args.marks: "),
        ("yes", "alwayson_scripts.loud.args: arguments are a list or an object"),
    ],
)
def test_bad_arguments_are_told_by_name(with_extension: TestClient, args: Any, words: str):
    body = SMALL | {"alwayson_scripts": {"loud": {"args": args}}}
    response = with_extension.post("/sdapi/v1/txt2img", json=body)
    assert response.status_code == 422
    assert words in response.json()["detail"]


def test_its_selectable_script_draws_through_inner_generations(with_extension: TestClient):
    answer = draw(with_extension, script_name="seed LIST", script_args=[[7, 8, 9]])
    info = json.loads(answer["info"])
    assert [colour(image) for image in answer["images"]] == [colour_of(seed) for seed in (7, 8, 9)]
    assert info["all_seeds"] == [7, 8, 9]
    assert ["Seed: 7" in text for text in info["infotexts"]] == [True, False, False]
    assert answer["parameters"]["script_name"] == "seed LIST"


def test_always_on_scripts_run_inside_inner_generations(with_extension: TestClient):
    loud = {"loud": {"args": [True, 3]}}
    answer = draw(with_extension, script_name="Seed list", alwayson_scripts=loud)
    assert json.loads(answer["info"])["prompt"] == "A CAT!!!"


def test_failing_inner_generation_fails_the_request(with_extension: TestClient, engine: FakeEngine):
    engine.failure = lambda job: RuntimeError("broken") if job.seeds[0] == 8 else None
    response = with_extension.post(
        "/sdapi/v1/txt2img", json=SMALL | {"script_name": "Seed list", "script_args": [[7, 8]]}
    )
    assert (response.status_code, response.json()["error"]) == (500, "RuntimeError")
    engine.failure = lambda job: None
    draw(with_extension)  # and nothing is stuck


def test_its_pictures_are_written_in_url_mode(with_extension: TestClient, data_dir: Path):
    scripts = {"save_dir": str(data_dir / "outputs")}
    answer = draw(
        with_extension, script_name="Seed list", script_args=[[7, 8]], alwayson_scripts=scripts
    )
    assert answer["parameters"]["seed"] == "7,8"
    assert all(Path(path).is_file() for path in answer["parameters"]["image_url"].split(","))


def test_its_route_is_there_behind_the_credentials(data_dir: Path, with_extension: TestClient):
    assert with_extension.get("/grain/checkpoints").json()[0].startswith("one.safetensors")


def test_it_is_left_out_when_extensions_are_disabled(serve: Serve, data_dir: Path):
    add_file(data_dir, "broken", "1 / 0")
    client = serve(disable_extensions=True)
    assert client.get("/sdapi/v1/extensions").json() == []


@pytest.mark.parametrize(
    "code",
    [
        "import nothing_of_this_name",
        "this is no python",
        "from sdapi.extensions import hookimpl\n@hookimpl\ndef sdapi_scripts():\n    return 1 / 0",
        "from sdapi.extensions import hookimpl\n@hookimpl\ndef sdapi_scripts():\n    return ['x']",
        "from sdapi.extensions import hookimpl\n@hookimpl\ndef sdapi_no_such_hook(): pass",
        "from sdapi.extensions import hookimpl\n@hookimpl\ndef sdapi_routers(services): 1 / 0",
    ],
)
def test_failing_extension_is_reported_and_costs_the_others_nothing(
    data_dir: Path, with_extension: TestClient, serve: Serve, code: str
):
    add_file(data_dir, "broken", code)
    client = serve()
    listed = {each["name"]: each for each in client.get("/sdapi/v1/extensions").json()}
    assert (listed["grain"]["enabled"], listed["grain"]["error"]) == (True, None)
    assert not listed["broken"]["enabled"]
    assert listed["broken"]["error"]
    assert "loud" in client.get("/sdapi/v1/scripts").json()["txt2img"]


DEFECTIVE = """
from sdapi.extensions import Script, hookimpl

class Defective(Script):
    name = "Defective"

    def prepare(self, job, args, preparation):
        raise ZeroDivisionError

@hookimpl
def sdapi_scripts():
    return [Defective()]
"""


def test_script_that_fails_costs_those_who_asked_for_it_only(serve: Serve, data_dir: Path):
    add_file(data_dir, "defective", DEFECTIVE)
    client = serve()
    assert draw(client)["warnings"] == ["the script 'Defective' failed: ZeroDivisionError"]
    body = SMALL | {"alwayson_scripts": {"defective": {}}}
    response = client.post("/sdapi/v1/txt2img", json=body)
    assert (response.status_code, response.json()["code"]) == (500, "script_failed")


def test_extra_options_are_set_by_position(serve: Serve, data_dir: Path):
    options = {"extra_options_txt2img": ["CLIP_stop_at_last_layers", "enable_prompt_comments"]}
    (data_dir / "config.json").write_text(json.dumps(options))
    client = serve()
    answer = draw(client, alwayson_scripts={"extra options": {"args": [2]}})
    assert json.loads(answer["info"])["clip_skip"] == 2
    overridden = {"CLIP_stop_at_last_layers": 3}
    answer = draw(
        client,
        alwayson_scripts={"extra options": {"args": [2]}},
        override_settings=overridden,
    )
    assert json.loads(answer["info"])["clip_skip"] == 3


BUSY = """
from pydantic import BaseModel
from sdapi.errors import QueueFull
from sdapi.extensions import Script, hookimpl

class NoArgs(BaseModel):
    pass

class Busy(Script):
    name = "Busy"
    args = NoArgs
    calls = 0

    def prepare(self, job, args, preparation):
        Busy.calls += 1
        if Busy.calls == REFUSED:
            raise QueueFull("others keep it busy; try again later")
        return job

@hookimpl
def sdapi_scripts():
    return [Busy()]
"""


def test_what_is_busy_in_the_middle_of_a_script_is_waited_for(data_dir: Path, serve: Serve):
    add_file(data_dir, "busy", BUSY.replace("REFUSED", "3"))
    lines = [False, False, "start", "a\nb\nc"]
    script = {"script_name": "Prompts from file or textbox", "script_args": lines}
    assert len(draw(serve(), **script)["images"]) == 3  # one for each line


def test_what_is_busy_refuses_a_plain_request(data_dir: Path, serve: Serve):
    add_file(data_dir, "busy", BUSY.replace("REFUSED", "1"))
    assert serve().post("/sdapi/v1/txt2img", json=SMALL).status_code == 429


REFUSING = """
from fastapi import APIRouter, HTTPException

from sdapi.extensions import hookimpl


@hookimpl
def sdapi_routers(services):
    router = APIRouter()

    @router.get("/refusing")
    def refusing():
        raise HTTPException(400, {"reason": "bad"}, headers={"X-Why": "ours"})

    return [router]
"""


def test_a_400_of_an_extensions_route_stays_as_it_is(serve: Serve, data_dir: Path):
    add_file(data_dir, "refusing", REFUSING)
    response = serve().get("/refusing")
    assert (response.status_code, response.json()) == (400, {"detail": {"reason": "bad"}})
    assert response.headers["x-why"] == "ours"
