"""Pictures and other files that requests save into a bucket."""

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from starlette.testclient import TestClient

from sdapi.settings import Mount
from tests.contract.conftest import Serve
from tests.contract.object_storage.calls import BUCKET, MOUNT, ask, pending, picture
from tests.fakes import FakeEngine, colour_of
from tests.oss.faults import Fault
from tests.oss.server import KEY, REGION, OssServer
from tests.oss.signatures import Key


@pytest.fixture(autouse=True, scope="module")
def collected() -> Iterator[None]:
    """S3's clients close where they are collected, which must not be in another test's loop."""
    yield
    gc.collect()


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
