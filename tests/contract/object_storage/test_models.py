"""Checkpoints, VAEs and LoRAs that requests name in a bucket."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from sdapi.settings import Mount
from tests.contract.conftest import Serve
from tests.contract.object_storage.calls import BUCKET, MOUNT, ask
from tests.fakes import FakeEngine
from tests.oss.faults import Fault
from tests.oss.server import OssServer
from tests.servers import wait_ready


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


def test_who_waits_for_a_model_has_no_place_in_the_queue_but_a_limit_of_its_own(
    serve: Serve, oss: OssServer
):
    client = serve(queue_limit=1, mounts=(Mount(MOUNT, f"oss://{BUCKET}/data-oss"),))
    oss.objects.put(BUCKET, "data-oss/m.safetensors", b"weights", "")
    oss.faults.rate, oss.faults.kinds, oss.faults.slow_s = 1.0, (Fault.SLOW,), 1.0
    name = f"oss://{BUCKET}/data-oss/m.safetensors"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, client, sd_model_checkpoint=name)
        wait_ready(lambda: client.app.state.services.tasks.open_count == 1, 10)
        refused = ask(client, sd_model_checkpoint=name)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5"), refused.text
        assert "wait for models" in refused.json()["detail"]
        assert ask(client).status_code == 200
        assert not waiting.done()
        assert waiting.result().status_code == 200


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
