"""Results in buckets, pictures and models from them, on a server of the OSS protocol."""

import base64
import io
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from PIL import Image
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.settings import Mount, Settings
from tests.contract.conftest import Serve
from tests.fakes import FakeEngine, FakeEngines, colour_of
from tests.oss.faults import Fault
from tests.oss.objects import Objects
from tests.oss.server import KEY, REGION, OssServer, oss_server
from tests.oss.signatures import Key
from tests.servers import in_process, wait_ready

BUCKET = "examplebucket"
MOUNT = Path("/code/stable-diffusion-webui/data-oss")
SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 1, "seed": 100}


@pytest.fixture
def oss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OssServer]:
    with oss_server(tmp_path / "buckets", buckets=(BUCKET, "other")) as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def mounted(serve: Serve, oss: OssServer) -> TestClient:
    """A server whose mount is only a name for a prefix."""
    return serve(mounts=(Mount(MOUNT, f"oss://{BUCKET}/data-oss"),), upload_timeout_s=5.0)


def ask(client: TestClient, body: dict[str, Any] | None = None, kind: str = "txt2img", **eas: Any):
    return client.post(f"/sdapi/v1/{kind}", json=SMALL | (body or {}) | {"alwayson_scripts": eas})


def picture(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def png(colour: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def pending(client: TestClient) -> int:
    return client.get("/readyz").json()["outbox"]["pending"]


# --- results ---------------------------------------------------------------------------------


def test_pictures_below_a_mount_are_in_the_bucket_under_the_replaced_path(
    mounted: TestClient, oss: OssServer, data_dir: Path
):
    answer = ask(mounted, {"n_iter": 2}, save_dir=f"{MOUNT}//outputs/")
    parameters = answer.json()["parameters"]
    paths = parameters["image_url"].split(",")
    keys = [path.replace(str(MOUNT), "data-oss") for path in paths]
    assert (answer.status_code, parameters["status"]) == (200, 0)
    assert keys[0].startswith("data-oss/outputs/txt2img-grids/")
    assert oss.objects.keys(BUCKET) == sorted(keys)
    for key, seed in zip(keys[1:], (100, 101), strict=True):
        image = picture(oss.objects.data(BUCKET, key))
        assert image.getpixel((0, 0)) == colour_of(seed)
        assert f"Seed: {seed}" in image.info["parameters"]
    copies = data_dir / "mounts" / MOUNT.relative_to("/")
    assert len(list(copies.rglob("*.png"))) == 3
    assert {status for _, _, status in oss.log} == {200}


def test_a_script_without_pictures_uploads_nothing(mounted: TestClient, oss: OssServer):
    script = {
        "script_name": "Prompts from file or textbox",
        "script_args": [False, False, "start", ""],
    }
    answer = ask(mounted, script, save_dir=str(MOUNT))
    parameters = answer.json()["parameters"]
    assert (answer.status_code, parameters["image_url"]) == (200, "")
    assert oss.objects.keys(BUCKET) == []


def test_save_dir_may_be_a_prefix_itself_and_leaves_nothing_here(
    serve: Serve, oss: OssServer, data_dir: Path
):
    client = serve(allow_oss=(f"oss://{BUCKET}/results",))
    answer = ask(client, save_dir=f"oss://{BUCKET}/results/a b+c/ü%/")
    (url,) = answer.json()["parameters"]["image_url"].split(",")
    assert url.startswith(f"oss://{BUCKET}/results/a b+c/ü%/txt2img-images/")
    assert oss.objects.keys(BUCKET) == [url.removeprefix(f"oss://{BUCKET}/")]
    assert list(data_dir.rglob("*.png")) == []


def test_prefix_below_a_mount_means_its_folder(mounted: TestClient, oss: OssServer):
    answer = ask(mounted, save_dir=f"oss://{BUCKET}/data-oss/x")
    (url,) = answer.json()["parameters"]["image_url"].split(",")
    assert oss.objects.keys(BUCKET) == [url.removeprefix(f"oss://{BUCKET}/")]


@pytest.mark.parametrize(
    ("save_dir", "status"),
    [
        ("oss://other/x", 403),
        (f"oss://{BUCKET}", 403),
        (f"oss://{BUCKET}/results-of-others", 403),
        (f"oss://{BUCKET}/results/../secret", 422),
        (f"oss://{BUCKET}/results//x", 422),
        (f"oss://{BUCKET}/results/./x", 422),
        (f"oss://{BUCKET}/results/a\nb", 422),
        (f"oss://{BUCKET}/results/a,b", 422),
        (f"oss://{BUCKET}/results/" + "x" * 1000, 422),
        ("oss://user:password@examplebucket/results", 422),
        ("oss:///results", 422),
        (f"OSS://{BUCKET}/results", 422),
        (f"s3://{BUCKET}/results", 403),
    ],
)
def test_prefix_of_others_and_tricks_are_refused_before_any_work(
    serve: Serve, oss: OssServer, engine: FakeEngine, save_dir: str, status: int
):
    client = serve(allow_oss=(f"oss://{BUCKET}/results",))
    answer = ask(client, save_dir=save_dir)
    assert answer.status_code == status, answer.text
    assert answer.json()["parameters"]["status"] == status
    assert "save_dir" in answer.json()["parameters"]["error_msg"]
    assert (engine.jobs, oss.log) == ([], [])


def test_saved_files_and_grids_go_the_same_road(mounted: TestClient, oss: OssServer):
    folders = {f"outdir_txt2img_{kind}": str(MOUNT / kind) for kind in ("samples", "grids")}
    options = folders | {"save_to_dirs": False, "grid_save_to_dirs": False, "save_txt": True}
    options["samples_filename_pattern"] = "[seed]"
    body = {"n_iter": 2, "save_images": True, "override_settings": options}
    assert "warnings" not in ask(mounted, body).json()
    assert sorted(key.split(".")[0] + key[-4:] for key in oss.objects.keys(BUCKET)) == [
        "data-oss/grids/grid-0000.png",
        "data-oss/grids/grid-0000.txt",
        *(f"data-oss/samples/00000-100{ending}" for ending in (".png", ".txt")),
        *(f"data-oss/samples/00001-101{ending}" for ending in (".png", ".txt")),
    ]


def test_running_numbers_go_on_behind_what_the_bucket_has(mounted: TestClient, oss: OssServer):
    oss.objects.put(BUCKET, "data-oss/samples/00041-7.png", b"of another machine", "image/png")
    options = {"outdir_txt2img_samples": str(MOUNT / "samples"), "save_to_dirs": False}
    ask(mounted, {"save_images": True, "override_settings": options})
    assert [key[:24] for key in oss.objects.keys(BUCKET)] == [
        "data-oss/samples/00041-7",
        "data-oss/samples/00042-1",
    ]
    assert oss.objects.data(BUCKET, "data-oss/samples/00041-7.png") == b"of another machine"


def test_numbers_do_not_begin_anew_when_files_are_dropped(serve: Serve, oss: OssServer):
    mounts = (Mount(MOUNT, f"oss://{BUCKET}/data-oss"),)
    client = serve(mounts=mounts, drop_uploaded=True)
    options = {"outdir_txt2img_samples": str(MOUNT), "save_to_dirs": False}
    for _ in range(2):
        answer = ask(client, {"save_images": True, "override_settings": options})
        assert "warnings" not in answer.json()
    assert [key[:14] for key in oss.objects.keys(BUCKET)] == ["data-oss/00000", "data-oss/00001"]


def test_dropped_files_leave_no_copy(serve: Serve, oss: OssServer, data_dir: Path):
    mounts = (Mount(MOUNT, f"oss://{BUCKET}/data-oss"),)
    client = serve(mounts=mounts, drop_uploaded=True)
    ask(client, save_dir=str(MOUNT))
    assert len(oss.objects.keys(BUCKET)) == 1
    assert list(data_dir.rglob("*.png")) == []


@pytest.mark.parametrize("region", [None, REGION])
@pytest.mark.parametrize("token", [None, "CAISexample+token/=="])
def test_links_can_be_read_by_anyone(
    serve: Serve,
    oss: OssServer,
    monkeypatch: pytest.MonkeyPatch,
    region: str | None,
    token: str | None,
):
    key = Key("STS.NExample", "secret", token) if token else KEY
    oss.keys = {key.id: key}
    for name, value in oss.environ(key, region=region).items():
        monkeypatch.setenv(name, value)
    client = serve(allow_oss=(f"oss://{BUCKET}/",), sign_urls_s=60)
    answer = ask(client, {"n_iter": 2}, save_dir=f"oss://{BUCKET}/ü ber")
    parameters = answer.json()["parameters"]
    links = parameters["signed_url"].split(",")
    assert len(links) == len(parameters["image_url"].split(",")) == 3
    for link, url in zip(links, parameters["image_url"].split(","), strict=True):
        found = requests.get(link, timeout=10)
        assert found.status_code == 200, found.text
        assert found.content == oss.objects.data(BUCKET, url.removeprefix(f"oss://{BUCKET}/"))
    assert requests.get(links[0].partition("?")[0], timeout=10).status_code == 403
    assert urlsplit(links[0]).netloc == urlsplit(oss.endpoint).netloc


def test_uploads_of_one_request_run_side_by_side(mounted: TestClient, oss: OssServer):
    oss.faults.script = [Fault.SLOW] * 9
    oss.faults.slow_s = 0.5
    began = time.monotonic()
    assert ask(mounted, {"batch_size": 8}, save_dir=str(MOUNT)).status_code == 200
    assert len(oss.objects.keys(BUCKET)) == 9
    assert time.monotonic() - began < 9 * 0.5


def test_connections_are_kept(mounted: TestClient, oss: OssServer):
    for _ in range(5):
        ask(mounted, save_dir=str(MOUNT))
    assert (len(oss.log), oss.connections) == (5, 1)


# --- a store that fails ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault.INTERNAL_ERROR,
        Fault.SERVICE_BUSY,
        Fault.RESET,
        Fault.LOST_ANSWER,
        Fault.WRONG_CRC,
    ],
)
def test_passing_failure_is_not_seen(mounted: TestClient, oss: OssServer, fault: Fault):
    oss.faults.script = [fault, fault]
    answer = ask(mounted, save_dir=str(MOUNT))
    assert answer.json()["parameters"]["status"] == 0
    (key,) = oss.objects.keys(BUCKET)
    assert picture(oss.objects.data(BUCKET, key)).getpixel((0, 0)) == colour_of(100)
    assert pending(mounted) == 0


@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, Fault.WRONG_CRC])
def test_retried_upload_does_not_collide_with_itself(
    mounted: TestClient, oss: OssServer, fault: Fault
):
    """Numbered files must not replace what is there, and their own damaged rest must go."""
    oss.faults.script = [None, fault]  # the first call lists the names
    options = {"outdir_txt2img_samples": str(MOUNT / "samples"), "save_to_dirs": False}
    answer = ask(mounted, {"save_images": True, "override_settings": options})
    assert "warnings" not in answer.json()
    (key,) = oss.objects.keys(BUCKET)
    assert picture(oss.objects.data(BUCKET, key)).getpixel((0, 0)) == colour_of(100)


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


def saved_below(folder: str, **options: Any) -> dict[str, Any]:
    """A request that saves below the mount, where numbers alone tell names apart."""
    names = {"samples_filename_pattern": "picture", "save_to_dirs": False}
    folders = {"outdir_txt2img_samples": str(MOUNT / folder)}
    return {"save_images": True, "override_settings": names | folders | options}


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


# --- pictures and models from buckets --------------------------------------------------------


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


def test_checkpoint_vae_and_lora_are_fetched_once_until_they_change(
    mounted: TestClient, oss: OssServer, engine: FakeEngine
):
    root = f"oss://{BUCKET}/data-oss/models"
    names = ("model.safetensors", "model.yaml", "vae.safetensors", "style.safetensors")
    for name in names:
        oss.objects.put(BUCKET, f"data-oss/models/{name}", b"1" + name.encode(), "")

    def draw() -> Any:
        body = {"prompt": f"a cat <lora:{root}/style.safetensors:0.5>"}
        eas = {"sd_model_checkpoint": f"{root}/model.safetensors"}
        answer = ask(mounted, body, **eas, sd_vae=f"{root}/vae.safetensors")
        assert answer.status_code == 200, answer.text
        assert "warnings" not in answer.json()
        return engine.jobs[-1]

    first, second = draw(), draw()
    assert first.checkpoint == second.checkpoint
    assert first.checkpoint.path.read_bytes() == b"1model.safetensors"
    assert first.checkpoint.sidecar.read_bytes() == b"1model.yaml"
    assert first.vae.path.read_bytes() == b"1vae.safetensors"
    (lora,) = first.networks.loras.values()
    assert lora.path.read_bytes() == b"1style.safetensors"
    fetched = [path for method, path, status in oss.log if method == "GET" and status == 200]
    assert len(fetched) == len(names)
    oss.objects.put(BUCKET, "data-oss/models/model.safetensors", b"another", "")
    assert draw().checkpoint.path.read_bytes() == b"another"


def test_others_are_served_while_many_wait_for_a_model(mounted: TestClient, oss: OssServer):
    oss.objects.put(BUCKET, "data-oss/m.safetensors", b"weights", "")
    oss.faults.rate, oss.faults.kinds, oss.faults.slow_s = 1.0, (Fault.SLOW,), 1.0
    name = f"oss://{BUCKET}/data-oss/m.safetensors"
    with ThreadPoolExecutor(70) as pool:
        waiting = [pool.submit(ask, mounted, sd_model_checkpoint=name) for _ in range(70)]
        wait_ready(lambda: mounted.app.state.services.tasks.open_count == 70, 10)
        assert ask(mounted).status_code == 200
        assert not any(each.done() for each in waiting)
        assert {each.result().status_code for each in waiting} == {200}
    assert [method for method, _, status in oss.log if method == "GET" and status == 200] == ["GET"]


def test_cancelled_request_lets_go_of_the_model_it_waits_for(mounted: TestClient, oss: OssServer):
    oss.objects.put(BUCKET, "data-oss/m.safetensors", b"weights", "")
    oss.faults.script, oss.faults.slow_s = [Fault.SLOW], 3.0
    name = f"oss://{BUCKET}/data-oss/m.safetensors"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, mounted, sd_model_checkpoint=name, id_task="7")
        wait_ready(lambda: mounted.post("/sdapi/v1/interrupt?id_task=7").status_code == 200, 10)
        assert asked.result().status_code == 409
        assert oss.log == []  # it has not answered yet


@pytest.mark.parametrize("key", ["sd_model_checkpoint", "sd_vae"])
def test_model_of_a_bucket_does_not_become_the_servers_own(
    mounted: TestClient, oss: OssServer, engine: FakeEngine, key: str
):
    oss.objects.put(BUCKET, "data-oss/m.safetensors", b"weights", "")
    overrides = {key: f"oss://{BUCKET}/data-oss/m.safetensors"}
    body = {"override_settings": overrides, "override_settings_restore_afterwards": False}
    answer = ask(mounted, body)
    assert (answer.status_code, engine.jobs) == (422, [])
    assert f"{key} oss://" in answer.json()["detail"]
    assert ask(mounted, {"override_settings": overrides}).status_code == 200


def test_missing_objects_of_models_are_told(mounted: TestClient, oss: OssServer):
    root = f"oss://{BUCKET}/data-oss"
    answer = ask(mounted, sd_model_checkpoint=f"{root}/none.safetensors")
    assert answer.status_code == 422
    assert "no such object" in answer.json()["detail"]
    answer = ask(mounted, {"prompt": f"<lora:{root}/none.safetensors:1>"})
    (warning,) = answer.json()["warnings"]
    assert warning.startswith(
        f"lora not used: lora {root}/none.safetensors: there is no such object"
    )
    answer = ask(mounted, {"prompt": "<lora:oss://other/x.safetensors:1>"})
    assert answer.status_code == 403
    answer = ask(mounted, sd_model_checkpoint=f"{root}/model.exe")
    assert answer.status_code == 422
