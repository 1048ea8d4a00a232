"""What a store that is away, slow or strict leaves to be uploaded later."""

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.settings import Mount, Settings
from tests.contract.conftest import Serve
from tests.contract.object_storage.calls import (
    BUCKET,
    MOUNT,
    SMALL,
    ask,
    pending,
    picture,
    png,
    saved_below,
)
from tests.fakes import FakeEngine, FakeEngines, colour_of
from tests.oss.faults import Fault
from tests.oss.objects import Objects
from tests.oss.server import KEY, OssServer
from tests.oss.signatures import Key
from tests.servers import in_process, wait_ready


def test_store_that_is_away_is_a_502_that_names_the_pictures(mounted: TestClient, oss: OssServer):
    oss.stop()
    answer = ask(mounted, {"n_iter": 2}, save_dir=str(MOUNT), id_task="7")
    parameters = answer.json()["parameters"]
    assert (answer.status_code, parameters["status"]) == (502, 502)
    assert answer.headers["x-sdapi-final"] == "1"
    assert (parameters["seed"], parameters["id_task"]) == ("100,101", "7")
    assert "stored, upload pending" in parameters["error_msg"]
    paths = parameters["image_url"].split(",")
    assert len(paths) == 3
    assert pending(mounted) == 3
    assert "sdapi_outbox_files 3.0" in mounted.get("/metrics").text
    assert ask(mounted, save_dir=str(MOUNT)).status_code == 502
    oss.start()
    wait_ready(lambda: pending(mounted) == 0, 20)
    keys = {path.replace(str(MOUNT), "data-oss") for path in paths}
    assert keys < set(oss.objects.keys(BUCKET))
    assert len(oss.objects.keys(BUCKET)) == 4
    assert set(oss.objects.writes.values()) == {1}


def test_what_is_pending_is_delivered_after_a_restart(serve: Serve, oss: OssServer, data_dir: Path):
    settings: dict[str, Any] = {
        "allow_oss": (f"oss://{BUCKET}/results",),
        "upload_timeout_s": 0.5,
    }
    oss.stop()
    answer = ask(serve(**settings), save_dir=f"oss://{BUCKET}/results")
    assert answer.status_code == 502
    oss.start()
    second = serve(**settings)
    wait_ready(lambda: pending(second) == 0, 20)
    url = answer.json()["parameters"]["image_url"]
    assert oss.objects.keys(BUCKET) == [url.removeprefix(f"oss://{BUCKET}/")]
    assert list(data_dir.rglob("*.png")) == []


def test_queue_takes_pending_as_the_result_and_does_not_draw_again(
    serve: Serve, oss: OssServer, engine: FakeEngine, tmp_path: Path
):
    service = {
        "metadata": {"name": "sd", "type": "Async"},
        "queue": {"max_delivery": 5},
        "containers": [{"image": "stable-diffusion-webui"}],
    }
    (tmp_path / "service.json").write_text(json.dumps(service))
    mounts = (Mount(MOUNT, f"oss://{BUCKET}/data-oss"),)
    client = serve(mounts=mounts, upload_timeout_s=0.5, service_files=(tmp_path / "service.json",))
    oss.stop()
    body = SMALL | {"alwayson_scripts": {"save_dir": str(MOUNT)}}
    client.post("/api/predict/sd/sdapi/v1/txt2img", json=body)
    sink = client.get("/api/predict/sd/sink?_raw_=false&_timeout_=20s").json()
    assert sink[0]["tags"]["lastCode"] == "502"
    parameters = json.loads(base64.b64decode(sink[0]["data"]))["parameters"]
    assert parameters["seed"] == "100"
    assert len(engine.jobs) == 1
    oss.start()
    wait_ready(lambda: pending(client) == 0, 20)
    assert oss.objects.keys(BUCKET) == [parameters["image_url"].replace(str(MOUNT), "data-oss")]


def test_saved_files_that_wait_are_a_warning(mounted: TestClient, oss: OssServer):
    oss.stop()
    options = {"outdir_txt2img_samples": str(MOUNT / "samples"), "save_to_dirs": False}
    answer = ask(mounted, {"save_images": True, "override_settings": options})
    assert answer.status_code == 200
    assert len(answer.json()["images"]) == 1
    assert "upload pending" in answer.json()["warnings"][0]
    oss.start()
    wait_ready(lambda: pending(mounted) == 0, 20)
    assert len(oss.objects.keys(BUCKET)) == 1


def test_slow_store_is_pending_after_the_limit_and_stored_all_the_same(
    serve: Serve, oss: OssServer
):
    mounts = (Mount(MOUNT, f"oss://{BUCKET}/data-oss"),)
    client = serve(mounts=mounts, upload_timeout_s=0.3)
    oss.faults.script, oss.faults.slow_s = [Fault.SLOW], 1.0
    answer = ask(client, save_dir=str(MOUNT))
    assert answer.status_code == 502
    assert "within 0.3 s" in answer.json()["parameters"]["error_msg"]
    wait_ready(lambda: pending(client) == 0, 20)
    assert set(oss.objects.writes.values()) == {1}


def test_permission_that_was_taken_away_is_told_and_what_waits_is_kept(
    mounted: TestClient, oss: OssServer
):
    oss.keys = {KEY.id: Key(KEY.id, KEY.secret, rights=frozenset({"read"}))}
    answer = ask(mounted, save_dir=str(MOUNT))
    assert answer.status_code == 502
    assert "no permission" in answer.json()["parameters"]["error_msg"]
    assert "AccessDenied" in mounted.get("/readyz").json()["outbox"]["last_error"]
    oss.keys = {KEY.id: KEY}
    wait_ready(lambda: pending(mounted) == 0, 20)
    assert len(oss.objects.keys(BUCKET)) == 1


@pytest.mark.parametrize("saves", [False, True])
def test_outbox_has_a_limit_and_says_so_before_drawing(
    serve: Serve, oss: OssServer, engine: FakeEngine, saves: bool
):
    mounts = (Mount(MOUNT, f"oss://{BUCKET}/data-oss"),)
    client = serve(mounts=mounts, upload_timeout_s=0.5, outbox_bytes=10)
    oss.stop()
    assert ask(client, save_dir=str(MOUNT)).status_code == 502
    if saves:
        answer = ask(client, saved_below("samples"))
        sentence = answer.json()["detail"]
        assert answer.json()["code"] == "outbox_full"
    else:
        answer = ask(client, save_dir=str(MOUNT))
        sentence = answer.json()["parameters"]["error_msg"]
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert "--outbox-gb" in sentence
    assert len(engine.jobs) == 1
    assert ask(client, {"save_images": True}).status_code == 200


def test_the_store_of_these_tests_gives_a_name_once(tmp_path: Path):
    both_are_here = threading.Barrier(2)
    objects = Objects(tmp_path, (BUCKET,), checksum=lambda data: both_are_here.wait(10))

    def takes(data: bytes) -> bool:
        try:
            objects.put(BUCKET, "name", data, "", replaces=False)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(takes, (b"one", b"two"))) == [False, True]


def test_two_servers_number_files_of_one_prefix(tmp_path: Path, oss: OssServer):
    """Each has seen the prefix empty, and the store is away when both choose their numbers."""
    settings = [
        Settings(
            data_dir=tmp_path / name,
            mounts=(Mount(MOUNT, f"oss://{BUCKET}/data-oss"),),
            upload_timeout_s=0.3,
        )
        for name in ("one", "two")
    ]
    body = saved_below("samples", save_txt=True)
    with ExitStack() as running:
        servers = []
        for each in settings:
            folder = each.checkpoint_dirs[0]
            folder.mkdir(parents=True)
            (folder / "one.safetensors").write_bytes(b"weights")
            app = build_app(each, FakeEngines(FakeEngine()))
            servers.append(running.enter_context(in_process(app)))
        oss.stop()
        for seed, server in enumerate((*servers, *servers)):
            answer = ask(server, {**body, "seed": seed})
            assert "upload pending" in answer.json()["warnings"][0]
        oss.start()
        for server in servers:
            wait_ready(lambda server=server: pending(server) == 0, 20)
            assert server.get("/readyz").json()["outbox"]["refused"] == 0
    numbers = [f"data-oss/samples/{n:05}-picture" for n in range(4)]
    keys = [key for key in oss.objects.keys(BUCKET) if key.endswith(".png")]
    texts = [key.removesuffix(".txt") for key in oss.objects.keys(BUCKET) if key.endswith(".txt")]
    assert ([key.removesuffix(".png") for key in keys], texts) == (numbers, numbers)
    seen = [picture(oss.objects.data(BUCKET, key)).getpixel((0, 0)) for key in keys]
    assert sorted(seen) == sorted(colour_of(seed) for seed in range(4))
    for each in settings:
        folder = each.data_dir / "mounts" / MOUNT.relative_to("/")
        copies = [path for path in folder.rglob("*") if path.is_file()]
        assert len(copies) == 4
        for path in copies:
            key = f"data-oss/{path.relative_to(folder)}"
            assert oss.objects.data(BUCKET, key) == path.read_bytes()


def test_equal_init_images_of_many_requests_are_dropped_and_cost_none(
    serve: Serve, oss: OssServer, data_dir: Path
):
    client = serve(mounts=(Mount(MOUNT, f"oss://{BUCKET}/data-oss"),), drop_uploaded=True)
    options = {"save_init_img": True, "outdir_init_images": str(MOUNT / "init")}
    image = base64.b64encode(png((1, 2, 3))).decode()
    body = {"init_images": [image], "override_settings": options}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(client, body, "img2img"), range(24)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(oss.objects.keys(BUCKET)) == 1
    wait_ready(lambda: pending(client) == 0, 20)
    assert list((data_dir / "mounts").rglob("*.png")) == []


def test_store_that_is_away_counts_as_a_failed_delivery_in_a_queue(
    serve: Serve, oss: OssServer, tmp_path: Path
):
    service = {
        "metadata": {"name": "sd", "type": "Async"},
        "queue": {"max_delivery": 2},
        "containers": [{"image": "stable-diffusion-webui"}],
    }
    (tmp_path / "service.json").write_text(json.dumps(service))
    mounts = (Mount(MOUNT, f"oss://{BUCKET}/data-oss"),)
    client = serve(mounts=mounts, service_files=(tmp_path / "service.json",))
    oss.stop()
    body = SMALL | {"alwayson_scripts": {"image_link": f"oss://{BUCKET}/data-oss/x.png"}}
    client.post("/api/predict/sd/sdapi/v1/img2img", json=body)
    sink = client.get("/api/predict/sd/sink?_raw_=false&_timeout_=30s").json()
    assert sink[0]["tags"]["lastCode"] == "503"
    assert json.loads(base64.b64decode(sink[0]["data"]))["code"] == "store_unavailable"
