import json
import threading

from starlette.testclient import TestClient

from tests.contract.conftest import Serve
from tests.fakes import FakeEngine
from tests.servers import wait_ready

COUNT = 20


def test_jobs_are_what_their_requests_asked_for_when_they_came(
    serve: Serve, engine: FakeEngine, data_dir
):
    (data_dir / "models/Stable-diffusion/two.safetensors").write_bytes(b"other weights")
    client = serve()
    engine.delay_s = 0.05
    answers: dict[int, dict] = {}

    def ask(seed: int) -> None:
        body = {"seed": seed, "width": 64, "height": 64, "force_task_id": f"task-{seed}"}
        answers[seed] = client.post("/sdapi/v1/txt2img", json=body).json()

    threads = list[threading.Thread]()
    expected = {}
    for seed in range(COUNT):
        model, clip_skip = ("one", "two")[seed // 5 % 2], 1 + seed // 5
        options = {"sd_model_checkpoint": model, "CLIP_stop_at_last_layers": clip_skip}
        if seed % 5 == 0:
            assert client.post("/sdapi/v1/options", json=options).status_code == 200
        expected[seed] = (model, clip_skip)
        threads.append(threading.Thread(target=ask, args=(seed,)))
        threads[-1].start()
        # The request is made with the options in force once it has its job.
        wait_ready(lambda name=f"task-{seed}": has_job(client, name), 10)
    for thread in threads:
        thread.join()
    for seed, answer in answers.items():
        info = json.loads(answer["info"])
        assert (info["sd_model_name"], info["clip_skip"], info["seed"]) == (*expected[seed], seed)


def has_job(client: TestClient, id_task: str) -> bool:
    services = client.app.state.services  # pyright: ignore
    task = services.tasks.get(id_task)
    return task is not None and (task.job is not None or not task.is_open)
