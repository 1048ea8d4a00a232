"""What the queue refuses, and what the rest of the server adds to its answers."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sdapi.app import build_app
from sdapi.queue.config.service_config import load_services
from sdapi.queue.config.spec import Program, ServiceSpec
from sdapi.queue.dispatching.inference import Inference
from sdapi.queue.dispatching.on_port import OnPort
from sdapi.queue.server import QueueServer
from sdapi.settings import Settings
from tests.contract.conftest import Serve
from tests.contract.queue.calls import SINK, put, service_file

BAD_GETS = [
    *("_index_=x", "_index_=-2", "_index_=99999999999999999999", "_length_=0", "_length_=-1"),
    *("_length_=1e3", "_length_=99999999", "_timeout_=-5s", "_timeout_=soon", "_timeout_=2h"),
    *("_raw_=maybe", "_auto_delete_=2", "k=%ff", "_watch_=true&_window_=0"),
    *("&".join(f"t{i}=" for i in range(65)), "t=" + "x" * 9000, "_search_=true&_index_=1.5"),
]


BAD_OTHERS = [
    *(("PUT", ""), ("PUT", "_indexes_="), ("PUT", "_indexes_=1,x"), ("DELETE", "")),
    *(("DELETE", "_indexes_=-1"), ("DELETE", "_trunc_=true&_index_=-1")),
    *(("POST", "_priority_=-1"), ("POST", "_priority_=x"), ("POST", "requestId=" + "x" * 300)),
]


def test_a_malformed_parameter_is_one_line_of_400(queue: TestClient):
    answers = {query: queue.get(f"{SINK}?{query}") for query in BAD_GETS} | {
        f"{method} {query}": queue.request(method, f"{SINK}?{query}")
        for method, query in BAD_OTHERS
    }
    assert {query for query, answer in answers.items() if answer.status_code != 400} == set()
    assert all(a.headers["content-type"].startswith("text/plain") for a in answers.values())
    assert all(a.text and "\n" not in a.text for a in answers.values())


def test_an_unknown_service_is_404(queue: TestClient):
    assert queue.get("/api/predict/nobody?_attrs_=true").status_code == 404
    assert queue.post("/api/predict/group.nobody/sink", content=b"x").status_code == 404
    assert queue.post("/api/predict/group.svc/sink", content=b"x").status_code == 200


def test_a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_413(
    serve: Serve, tmp_path: Path
):
    client = serve(service_files=(service_file(tmp_path),))
    assert client.post("/api/predict/small/sink", content=b"x" * 8192).status_code == 200
    refused = client.post("/api/predict/small/sink", content=b"x" * 8193)
    assert refused.status_code == 413
    assert "8192" in refused.text
    assert "retry-after" not in refused.headers


def test_queue_answers_carry_what_every_answer_does(serve: Serve):
    client = serve(
        services=("svc",), cors_origins=("https://studio.example",), max_body_bytes=10_000
    )
    plain = put(client)
    assert (len(plain.headers["x-request-id"]), plain.headers["vary"]) == (32, "Origin")
    assert float(plain.headers["x-process-time"]) < 10
    page = {"origin": "https://studio.example"}
    answer = client.post(SINK, content=b"abc", headers=page)
    assert answer.headers["access-control-allow-origin"] == "https://studio.example"
    preflight = client.options(SINK, headers=page | {"access-control-request-method": "POST"})
    assert (preflight.status_code, preflight.text) == (200, "OK")
    other = client.post(SINK, content=b"abc", headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers
    large = client.post(SINK, content=b"x" * 10_001)
    assert (large.status_code, large.text.partition(";")[0]) == (
        413,
        "the body is larger than 10000 bytes",
    )
    counted = client.get("/metrics").text
    labels = 'method="POST",route="/api/predict/{name}/{rest:path}",status="200"'
    assert f"sdapi_requests_total{{{labels}}} 3.0" in counted


@pytest.mark.parametrize(("sink_kb", "is_told"), [(None, True), (17, True), (18, False)])
def test_the_start_warns_of_an_output_queue_too_small_for_portraits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sink_kb: int | None, is_told: bool
):
    path = service_file(
        tmp_path,
        containers=[{"image": "x/photog_pub:infer.1.0.0.pub", "port": 7861}],
        queue={} if sink_kb is None else {"sink": {"max_payload_size_kb": sink_kb}},
    )
    build_app(Settings(data_dir=tmp_path, service_files=(path,)))
    told = [r.getMessage() for r in caplog.records if "max_payload_size_kb" in r.getMessage()]
    assert [text.partition(":")[0] for text in told] == ["small"] * is_told


def test_services_of_one_program_have_each_the_limits_of_their_own_sinks(tmp_path: Path):
    asked: list[tuple[str, int]] = []

    def made(spec: ServiceSpec) -> Inference:
        asked.append((spec.name, spec.sink.max_payload_bytes))
        return OnPort(spec)

    paths = [portrait_file(tmp_path / name, name, kb) for name, kb in (("one", 17), ("two", 9))]
    settings = Settings(data_dir=tmp_path, service_files=tuple(paths))
    server = QueueServer(settings, load_services(settings), {Program.PORTRAIT_INFER: made})
    assert asked == [("one", 17 << 10), ("two", 9 << 10)]
    assert server.inferences["one"] is not server.inferences["two"]


def test_the_start_warns_of_every_small_sink(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    sizes = (("large", 20480), ("one", 17), ("two", 9))
    paths = [portrait_file(tmp_path / name, name, kb) for name, kb in sizes]
    build_app(Settings(data_dir=tmp_path, service_files=tuple(paths)))
    told = [r.getMessage() for r in caplog.records if "max_payload_size_kb" in r.getMessage()]
    assert [text.partition(" bytes")[0] for text in told] == [
        "one: its output queue takes 17408",
        "two: its output queue takes 9216",
    ]


def portrait_file(folder: Path, name: str, sink_kb: int) -> Path:
    """The file of a service that makes portraits."""
    folder.mkdir()
    return service_file(
        folder,
        metadata={"name": name, "type": "Async"},
        containers=[{"image": "x/photog_pub:infer.1.0.0.pub", "port": 7861}],
        queue={"sink": {"max_payload_size_kb": sink_kb}},
    )


def test_a_full_queue_is_429_without_retry_after(serve: Serve, tmp_path: Path):
    queue = {
        "memory": 1,
        "source": {"max_payload_size_kb": 400},
        "sink": {"max_payload_size_kb": 400},
    }
    client = serve(service_files=(service_file(tmp_path, queue=queue),))
    statuses = [
        client.post("/api/predict/small/sink", content=b"x" * 300_000).status_code for _ in range(3)
    ]
    assert statuses == [200, 429, 429]


@pytest.mark.parametrize("code", ["%00", "%01", "%0b", "%1b", "%7f", "%0a", "%E4%B8%AD"])
def test_a_request_id_that_no_header_can_carry_is_refused(queue: TestClient, code: str):
    answer = queue.post(f"{SINK}?requestId=a{code}b", content=b"abc")
    assert (answer.status_code, answer.text.partition(" ")[0]) == (400, "requestId")
    assert queue.get(SINK).status_code == 204
    assert queue.post(f"{SINK}?requestId=a%20%7Eb", content=b"abc").status_code == 200
    assert queue.get(SINK).headers["X-Eas-Queueservice-Request-Id"] == "a ~b"


def test_too_many_parameters_are_named_as_such(queue: TestClient):
    answer = queue.get(SINK + "?" + "&".join(f"a{number}=1" for number in range(1001)))
    assert (answer.status_code, answer.text) == (
        400,
        "the query string has at most 1000 parameters",
    )


@pytest.mark.parametrize("index", [2**53, 2**63 - 1, 2**64 - 1])
def test_an_index_may_have_64_bits(queue: TestClient, index: int):
    put(queue)
    assert queue.get(f"{SINK}?_index_={index}").status_code == 204
    assert queue.get(f"{SINK}?_search_=true&_index_={index}").status_code == 404
    for call in (queue.put, queue.delete):
        assert call(f"{SINK}?_indexes_={index}").text == "OK"
    assert queue.delete(f"{SINK}?_trunc_=true&_index_={index}").text == "OK"
    assert queue.get(SINK).status_code == 204
    assert queue.get(f"{SINK}?_index_={2**64}").status_code == 400
