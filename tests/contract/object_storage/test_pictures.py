"""Pictures that requests bring from a bucket."""

import os

import pytest
from starlette.testclient import TestClient

from tests.contract.object_storage.calls import BUCKET, SMALL, ask, png
from tests.fakes import FakeEngine
from tests.oss.server import OssServer


@pytest.mark.parametrize("place", ["image_link", "init_images"])
def test_pictures_are_read_from_the_bucket(mounted: TestClient, oss: OssServer, place: str):
    oss.objects.put(BUCKET, "data-oss/in/ü 1.png", png((9, 9, 9)), "image/png")
    url = f"oss://{BUCKET}/data-oss/in/ü 1.png"
    if place == "image_link":
        answer = ask(mounted, kind="img2img", image_link=url)
    else:
        answer = ask(mounted, {"init_images": [url]}, "img2img")
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["images"]) == 1


@pytest.mark.parametrize(("name", "status"), [("map.png", 200), ("none.png", 422)])
def test_controlnet_units_take_their_picture_from_the_bucket(
    mounted: TestClient, oss: OssServer, name: str, status: int
):
    oss.objects.put(BUCKET, "data-oss/map.png", png((9, 9, 9)), "image/png")
    unit = {"module": "reference_only", "image_link": f"oss://{BUCKET}/data-oss/{name}"}
    scripts = {"controlnet": {"args": [unit]}}
    answer = mounted.post("/sdapi/v1/txt2img", json=SMALL | {"alwayson_scripts": scripts})
    assert answer.status_code == status, answer.text
    assert ("GET", f"/{BUCKET}/data-oss/{name}", 200 if status == 200 else 404) in oss.log


@pytest.mark.parametrize(
    ("url", "status", "word"),
    [
        (f"oss://{BUCKET}/data-oss/none.png", 422, "no such object"),
        (f"oss://{BUCKET}/elsewhere.png", 403, "outside"),
        ("oss://other/data-oss/x.png", 403, "outside"),
        (f"oss://{BUCKET}/data-oss/../x.png", 422, "'..'"),
        (f"oss://{BUCKET}/data-oss/text.png", 422, "no picture"),
        (f"oss://{BUCKET}/data-oss/large.png", 422, "larger than"),
    ],
)
def test_object_that_is_no_picture_of_ours_is_refused(
    mounted: TestClient, oss: OssServer, engine: FakeEngine, url: str, status: int, word: str
):
    oss.objects.put(BUCKET, "data-oss/text.png", b"text", "image/png")
    oss.objects.put(BUCKET, "data-oss/large.png", b"", "image/png")
    large = oss.objects._path(BUCKET, "data-oss/large.png").with_suffix(".data")
    os.truncate(large, (64 << 20) + 1)
    answer = ask(mounted, kind="img2img", image_link=url)
    assert answer.status_code == status, answer.text
    assert word in answer.json()["detail"]
    assert engine.jobs == []


def test_picture_of_a_store_that_is_away_may_be_asked_for_again(
    mounted: TestClient, oss: OssServer
):
    oss.stop()
    answer = ask(mounted, kind="img2img", image_link=f"oss://{BUCKET}/data-oss/x.png")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert answer.headers["retry-after"] == "10"
