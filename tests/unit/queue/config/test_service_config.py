import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sdapi.cli import main
from sdapi.errors import PathNotAllowed
from sdapi.flags import parse
from sdapi.queue.config.service_config import (
    ServiceFileError,
    load_services,
    parse_service,
    read_service_file,
)
from sdapi.queue.config.service_files import Deployment
from sdapi.queue.config.spec import Program
from sdapi.queue.stores.sqlite.store import SqliteStore
from sdapi.queue.stores.store import NewItem, QueueName, Store
from sdapi.services.storage.places import Places, named_folder
from sdapi.settings import Settings, settings_from

DEPLOY = Path(__file__).parents[4] / "deploy"

#: the asynchronous service of the API document
SD_ASYNC = """
{ "metadata": { "name": "sd_async", "instance": 1, "rpc.work_threads": 1, "type": "Async" },
  "cloud": { "computing": { "instance_type": "ml.gu7i.c16m60.1-gu30", "instances": null },
    "networking": { "vpc_id": "v", "vswitch_id": "w", "security_group_id": "s" } },
  "queue": { "cpu": 1, "max_delivery": 1, "memory": 4000, "resource": "" },
  "storage": [
    { "oss": { "path": "oss://examplebucket/aohai-singapore/", "readOnly": false },
      "properties": { "resource_type": "model" },
      "mount_path": "/code/stable-diffusion-webui/data-oss" },
    { "nfs": { "path": "/", "server": "0c9624-fgh60.cn-hangzhou.nas.aliyuncs.com" },
      "properties": { "resource_type": "model" },
      "mount_path": "/code/stable-diffusion-webui/data-nas" } ],
  "containers": [ { "image": "eas-registry-vpc.cr.aliyuncs.com/pai-eas/stable-diffusion-webui:3.2",
    "script":
      "./webui.sh --listen --port 8000 --no-hashing --api --nowebui --data-dir data-nas --odd",
    "port": 8000 } ] }
"""


def test_the_api_documents_service_is_read_with_its_spelling():
    file = parse_service(SD_ASYNC)
    spec = file.spec
    assert (spec.name, spec.is_async, spec.worker_threads, spec.max_delivery) == (
        *("sd_async", True),
        *(1, 1),
    )
    assert (spec.keepalive_s, spec.source.max_payload_bytes) == (600, 8192)
    assert spec.memory_bytes == 4000 << 20
    assert spec.container.program is Program.WEBUI
    assert [s.target for s in spec.storage] == ["oss://examplebucket/aohai-singapore", "/"]
    ignored = {warning.partition(" ")[0] for warning in file.warnings}
    assert ignored == {"cloud.computing", "cloud.networking", "queue.cpu"}


def test_the_portrait_documents_scaling_and_sizes_are_read():
    spec = parse_service((DEPLOY / "service.json").read_text()).spec
    assert spec.autoscaler is not None
    assert (spec.autoscaler.minimum, spec.autoscaler.maximum) == (1, 5)
    assert (spec.autoscaler.backlog, spec.autoscaler.stabilization_s) == (1, 60)
    assert (spec.keepalive_s, spec.worker_threads) == (3600, 1)
    assert spec.room(spec.source_queue).bytes // spec.source.max_payload_bytes - 1 == 1439


@pytest.mark.parametrize(
    ("image", "program"),
    [
        ("registry.cn-beijing.aliyuncs.com/mybigpai/photog_pub:check.1.0.0.pub", "portrait-check"),
        ("x/photog:train.2", "portrait-train"),
        ("x/photog_pub:infer.1.0.0.pub", "portrait-infer"),
        ("eas-registry/pai-eas/stable-diffusion-webui:3.2", "webui"),
        ("x/something:1", "other"),
    ],
)
def test_an_image_tells_the_program(image: str, program: str):
    assert parse_service(
        service(containers=[{"image": image, "port": 1}])
    ).spec.container.program == (Program(program))


def service(**changes: Any) -> str:
    content: dict[str, Any] = {
        "metadata": {"name": "svc", "type": "Async"},
        "containers": [{"image": "stable-diffusion-webui"}],
    }
    return json.dumps(content | changes)


def test_trailing_commas_are_let_pass_but_not_in_texts():
    text = '{"metadata": {"name": "svc", }, "containers": [{"image": "x,}", "port": 80,}, ], }'
    assert parse_service(text).spec.container.image == "x,}"


def test_absent_fields_have_the_products_defaults():
    spec = parse_service(service()).spec
    assert (spec.worker_threads, spec.max_delivery, spec.max_idle_s) == (5, 5, None)
    synchronous = parse_service(service(metadata={"name": "svc"})).spec
    assert (synchronous.is_async, synchronous.keepalive_s) == (False, 5)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"metadata": {"name": "a b"}}, "metadata.name"),
        ({"metadata": {"name": "a", "type": "Sync"}}, "metadata.type"),
        ({"metadata": {"name": "a", "rpc": {"keepalive": "1s"}}}, "metadata.rpc.keepalive"),
        ({"metadata": {"name": "a", "instance": True}}, "metadata.instance"),
        ({"queue": {"max_delivery": -1}}, "queue.max_delivery"),
        ({"queue": {"max_idle": "soon"}}, "queue.max_idle"),
        ({"queue": {"dead_message_policy": "Keep"}}, "queue.dead_message_policy"),
        ({"queue": {"sink": {"memory_ratio": 2}}}, "queue.sink.memory_ratio"),
        ({"containers": [{"image": "other"}]}, "containers[0].port"),
        ({"containers": None}, "containers"),
        ({"containers": []}, "containers"),
        ({"containers": [{"image": "other", "port": 70000}]}, "containers[0].port"),
        ({"metadata": {"name": "a", "instance": 101}}, "metadata.instance"),
        ({"storage": [{"mount_path": "x"}]}, "storage[0].mount_path"),
        ({"autoscaler": {"min": 3, "max": 1}}, "autoscaler"),
        ({"metadata": []}, "metadata"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], named: str):
    with pytest.raises(ServiceFileError) as error:
        parse_service(service(**changes))
    assert named in str(error.value)


def test_an_editors_byte_order_mark_is_let_pass(tmp_path: Path):
    file = tmp_path / "service.json"
    file.write_text(SD_ASYNC, encoding="utf-8-sig")
    assert read_service_file(file).spec.name == "sd_async"


def test_services_come_from_files_and_flags_and_without_any_there_is_one(tmp_path: Path):
    path = tmp_path / "s.json"
    path.write_text(service())
    settings = Settings(data_dir=tmp_path, service_files=(path,), services=("a:sync", "b"))
    assert [(s.name, s.is_async) for s in load_services(settings)] == [
        *(("svc", True), ("a", False), ("b", True)),
    ]
    [default] = load_services(Settings(data_dir=tmp_path, portrait=False))
    assert (default.name, default.max_delivery, default.keepalive_s) == ("sd_async", 1, 3600)
    with pytest.raises(ServiceFileError, match="several"):
        load_services(Settings(data_dir=tmp_path, services=("a", "a")))
    with pytest.raises(ServiceFileError, match="--service"):
        load_services(Settings(data_dir=tmp_path, services=("a:b",)))


def test_the_programs_command_line_counts_less_than_ours_and_its_port_not_at_all(tmp_path: Path):
    path = tmp_path / "s.json"
    path.write_text(SD_ASYNC)
    arguments, warnings = Deployment.read([path], tmp_path).arguments()
    folder = tmp_path / "mounts/code/stable-diffusion-webui/data-nas"
    assert arguments == ["--no-hashing", "--api", "--nowebui", "--data-dir", str(folder)]
    assert "sd_async: --odd is no flag here" in warnings
    flags = parse(["--data-dir", "/own"], {"SDAPI_NO_HASHING": "false"}, arguments)
    assert (flags["data_dir"], flags["no_hashing"], flags["nowebui"]) == ("/own", False, True)


def test_a_mount_that_is_not_on_this_machine_is_a_name(tmp_path: Path):
    path = tmp_path / "s.json"
    path.write_text(SD_ASYNC)
    settings = Deployment.read([path], tmp_path).add_storage(Settings(data_dir=tmp_path))
    named = Path("/code/stable-diffusion-webui/data-nas/outputs")
    assert settings.on_disk(named) == tmp_path / "mounts" / named.relative_to("/")
    assert settings.on_disk(Path("/elsewhere")) == Path("/elsewhere")
    assert [mount.oss for mount in settings.mounts] == ["oss://examplebucket/aohai-singapore", None]


def test_a_data_directory_in_a_named_mount_is_the_folder_of_that_mount(tmp_path: Path):
    path = tmp_path / "s.json"
    path.write_text(SD_ASYNC)
    deployment = Deployment.read([path], tmp_path)
    arguments, _ = deployment.arguments()
    data_dir = Path(arguments[arguments.index("--data-dir") + 1])
    settings = deployment.add_storage(Settings(data_dir=data_dir))
    named = Path("/code/stable-diffusion-webui/data-nas/outputs")
    assert settings.on_disk(named) == data_dir / "outputs"


@pytest.mark.parametrize(
    ("kind", "save_dir"),
    [
        ({"oss": {"path": "oss://bucket/in", "readOnly": True}}, "/data-in/x"),
        ({"oss": {"path": "oss://bucket/in", "readOnly": True}}, "oss://bucket/in/x"),
        ({"oss": {"path": "oss://bucket/in", "readOnly": True}}, "mounts/data-in"),
        ({"nfs": {"path": "/", "server": "nas", "readOnly": True}}, "/data-in"),
    ],
)
def test_storage_that_is_read_only_takes_no_results(
    tmp_path: Path, kind: dict[str, Any], save_dir: str
):
    inner = {"mount_path": "/data-in/out", "oss": {"path": "oss://bucket/in/out"}}
    content = json.loads(SD_ASYNC) | {"storage": [{"mount_path": "/data-in", **kind}, inner]}
    path = tmp_path / "s.json"
    path.write_text(json.dumps(content))
    places = Places(Deployment.read([path], tmp_path).add_storage(Settings(data_dir=tmp_path)))
    with pytest.raises(PathNotAllowed, match="the mount /data-in, which is read-only") as caught:
        places.of_save_dir(save_dir)
    assert caught.value.status == 403
    assert places.of_save_dir("/data-in/out/x").spelled == "/data-in/out/x"
    if "oss" in kind:
        url, _ = places.allowed("oss://bucket/in/picture.png", field="image_link")
        assert url.key == "in/picture.png"


def test_a_broken_service_file_is_one_sentence_and_exit_code_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "s.json"
    path.write_text("{")
    assert main(["--eas-config", str(path), "--data-dir", str(tmp_path)]) == 2
    assert str(path) in capsys.readouterr().err


# --- manifests -------------------------------------------------------------------------------


def test_scaling_of_the_manifest_is_that_of_the_service_file():
    scaler = parse_service((DEPLOY / "service.json").read_text()).spec.autoscaler
    assert scaler is not None
    spec = yaml.safe_load((DEPLOY / "kubernetes/scaling.yaml").read_text())["spec"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert spec["minReplicaCount"] == scaler.minimum
    assert spec["maxReplicaCount"] == scaler.maximum
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == scaler.stabilization_s
    assert float(spec["triggers"][0]["metadata"]["threshold"]) == scaler.backlog


def test_command_lines_of_the_manifests_are_understood(tmp_path: Path):
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    kubernetes = list(yaml.safe_load_all((DEPLOY / "kubernetes/sdapi.yaml").read_text()))
    lines = [compose[name]["command"] for name in ("api", "worker")]
    lines += [
        each["spec"]["template"]["spec"]["containers"][0]["args"]
        for each in kubernetes
        if each["kind"] in ("Deployment", "StatefulSet")
    ]
    roles = [
        settings_from(parse(line[2:], {"SDAPI_QUEUE_URL": "redis://r:1/0"}), tmp_path).role
        for line in lines
    ]
    assert roles == ["api", "worker", "api", "worker"]


def test_each_worker_of_the_compose_file_has_a_gpu_of_its_own():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    workers = [each for each in compose.values() if "worker" in each.get("command", [])]
    devices = [each["deploy"]["resources"]["reservations"]["devices"] for each in workers]
    assert [device["device_ids"] for (device,) in devices] == [["0"], ["1"]]


def test_what_waits_for_a_bucket_outlives_workers_of_the_manifests(tmp_path: Path):
    settings = Settings(data_dir=Path("/sdapi"))
    needed = {str(settings.outbox_dir), str(named_folder(Path("/x"), settings.data_dir).parent)}
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    volumes = dict(volume.split(":")[:2] for volume in compose["services"]["worker"]["volumes"])
    kept = {place for name, place in volumes.items() if name in compose["volumes"]}
    kubernetes = list(yaml.safe_load_all((DEPLOY / "kubernetes/sdapi.yaml").read_text()))
    (workers,) = (each["spec"] for each in kubernetes if each["kind"] == "StatefulSet")
    claims = {claim["metadata"]["name"] for claim in workers["volumeClaimTemplates"]}
    mounts = workers["template"]["spec"]["containers"][0]["volumeMounts"]
    claimed = {mount["mountPath"] for mount in mounts if mount["name"] in claims}
    assert needed <= kept
    assert needed <= claimed


def test_servers_of_the_manifests_share_portraits_and_the_loras_of_people():
    settings = Settings(data_dir=Path("/sdapi"))
    needed = {str(settings.portrait_dir), str(settings.models_dir)}
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    servers = [compose["services"][name] for name in ("api", "worker")]
    volumes = [
        {volume.split(":")[1]: volume.split(":")[0] for volume in s["volumes"]} for s in servers
    ]
    for place in needed:
        assert volumes[0][place] == volumes[1][place] in compose["volumes"]
    kubernetes = list(yaml.safe_load_all((DEPLOY / "kubernetes/sdapi.yaml").read_text()))
    pods = [e["spec"]["template"]["spec"] for e in kubernetes if e["kind"] != "Service"]
    assert len(pods) == 2
    claims = [
        {volume["name"]: volume.get("persistentVolumeClaim") for volume in pod["volumes"]}
        for pod in pods
    ]
    mounts = [
        {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        for pod in pods
    ]
    for place in needed:
        front, worker = (of[at[place]] for of, at in zip(claims, mounts, strict=True))
        assert front == worker is not None


# --- operators' commands ---------------------------------------------------------------------


def fill(path: Path) -> None:
    async def put() -> None:
        store: Store = SqliteStore(path / "sdapi.db")
        await store.open(lambda event: None)
        for number, queue in enumerate((QueueName("svc"), QueueName("svc").rear)):
            tags = {"requestId": f"r{number}", "k": "v"}
            await store.put(queue, NewItem(f"r{number}", tags, b"abc", path="/p"))
        await store.close()

    asyncio.run(put())


def test_operators_list_show_purge_and_requeue(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fill(tmp_path)

    def command(*words: str) -> str:
        assert main(["queue", *words, "--data-dir", str(tmp_path)]) == 0
        return capsys.readouterr().out

    assert [line.split()[:2] for line in command("list").splitlines()[1:]] == [
        *(["svc", "1"], ["svc#rear", "1"]),
    ]
    assert "/p k=v requestId=r0" in (shown := command("show", "svc"))
    assert shown.splitlines()[1] == "no consumer is connected"
    assert command("purge", "svc") == "1 items deleted from svc\n"
    assert command("requeue-rear", "svc") == "1 items moved from svc#rear to svc\n"
    assert "requestId=r1" in command("show", "svc")


def test_a_command_that_cannot_be_understood_prints_the_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for words in ([], ["drop"], ["show"], ["list", "x"], ["show", "svc/sinks"]):
        assert main(["queue", *words, "--data-dir", str(tmp_path)]) == 2
        assert "requeue-rear" in capsys.readouterr().err
    fill(tmp_path)
    assert main(["queue", "show", "other", "--data-dir", str(tmp_path)]) == 1
    assert "there is no service other; there are" in capsys.readouterr().err
    assert main(["queue", "list", "--data-dir", str(tmp_path / "typo")]) == 1
    assert "--data-dir" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_commands_find_nothing_to_do_before_the_first_item(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def command(*words: str) -> str:
        assert main(["queue", *words, "--data-dir", str(tmp_path)]) == 0
        return capsys.readouterr().out

    assert len(command("list").splitlines()) == 1
    assert command("purge", "sd_async#rear") == "0 items deleted from sd_async#rear\n"
    assert command("requeue-rear", "sd_async/sink") == (
        "0 items moved from sd_async/sink#rear to sd_async/sink\n"
    )
    assert command("show", "sd_async").startswith("sd_async: 0 items")
