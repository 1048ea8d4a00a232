"""The original's Python client, unmodified, against both stores."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from sdapi.app import build_app
from sdapi.settings import Settings
from tests.eas_client import client_python
from tests.fakes import FakeEngine, FakeEngines
from tests.queues.queue_stores import redis_server, redis_servers
from tests.servers import listening

TOKEN = "dG9rZW4="
KINDS = ["sqlite", *list(redis_servers())[:1]]

#: the calls of the portrait document, with its service and request
PORTRAIT = """
import json, sys
from eas_prediction import QueueClient
endpoint, token = sys.argv[1:]

input_queue = QueueClient(endpoint, 'photog_check')
input_queue.set_token(token)
input_queue.init()
configure = {'face_reconize': True}
datas = json.dumps({'request_id': 12345, 'images': ['xx.jpg'], 'configure': configure})
index, request_id = input_queue.put(f'{datas}')
attrs = input_queue.attributes()

sink_queue = QueueClient(endpoint, 'photog_check/sink')
sink_queue.set_token(token)
sink_queue.init()
kept = sink_queue.get(request_id, auto_delete=False)[0].data.decode('utf-8')
result = sink_queue.get(request_id, auto_delete=True)[0]
gone = sink_queue.get(request_id, timeout='0s')
print(json.dumps([index, request_id, attrs, kept, result.data.decode('utf-8'),
                  dict(result.tags), len(gone)]))
"""

#: tags, priorities, watches and the other verbs
VERBS = """
import json, sys
from eas_prediction import QueueClient
from eas_prediction.exception import PredictException
endpoint, token = sys.argv[1:]

def client(name, **init):
    made = QueueClient(endpoint, name)
    made.set_token(token)
    made.init(**init)
    return made

sink = client('photog_check/sink', uid='me')
sink.truncate(int(sink.attributes()['stream.lastEntry']) + 1)
first = int(sink.put('a', {'task_id': 't 1/\u4e2d', '_priority_': 0})[0])
sink.put('b', {'_priority_': 1})
tagged = sink.get(tags={'task_id': 't 1/\u4e2d'}, auto_delete=False)
out = {'by_tag': [frame.data.decode() for frame in tagged],
       'order': [], 'search': sink.search(first), 'unknown': sink.search(first + 99)}
watcher = sink.watch(0, 2, auto_commit=False)
for x in watcher.run():
    out['order'].append(x.data.decode())
    out['commit'] = sink.commit(x.index).decode()
    if len(out['order']) == 2:
        break
watcher.close()
out['length'] = sink.attributes()['stream.length']
indexes = [int(sink.put(str(n))[0]) for n in range(4)]
out['delete'] = sink.delete(indexes[:2])
out['truncate'] = sink.truncate(indexes[3]).decode()
out['left'] = [f.index - indexes[0] for f in sink.get(length=9, timeout='0s')]
errors = []
for token_, size, name in (('wrong', 1, 'photog_check'), (token, 1 << 21, 'small')):
    refused = client(name)
    refused.set_token(token_)
    refused.set_retry_count(1)
    try:
        refused.put('x' * size)
    except PredictException as error:
        errors.append([error.code, str(error.message)])
out['errors'] = errors
waiting = client('photog_check/sink')
waiting.set_timeout(1000)
waiting.set_retry_count(1)
try:
    waiting.get('nobody', timeout='1s')
except PredictException as error:
    out['waiting'] = error.code
print(json.dumps(out))
"""

#: the client's own tests, but for where the queue is
OWN_TESTS = """
import sys, unittest
from eas_prediction import test_queue_client as module
module.QueueEndpoint, module.QueueToken = sys.argv[1:3]
tests = unittest.defaultTestLoader.loadTestsFromNames(sys.argv[3:], module.QueueClientTestCase) \\
    if sys.argv[3:] else unittest.defaultTestLoader.loadTestsFromModule(module)
sys.exit(not unittest.TextTestRunner(verbosity=2).run(tests).wasSuccessful())
"""
#: those that put 2,000 items
LONG = ("test_watch_async", "test_watch_with_inference_service_async")
SHORT = (
    *("test_queue_get_by_index", "test_queue_get_by_request_id", "test_queue_truncate"),
    *("test_watch_with_auto_commit", "test_watch_with_inference_service_sync"),
    *("test_watch_with_manual_commit", "test_watch_with_two_watcher"),
)


class Echo(BaseHTTPRequestHandler):
    """An inference program of somebody else: answers each request with its size and path."""

    def do_POST(self) -> None:
        size = len(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps([{"size": size, "path": self.path}]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture(scope="module")
def echo_port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module", params=KINDS)
def url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, echo_port: int
) -> Iterator[str]:
    """A server of three services whose program is somebody else's."""
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as running:
        queue_url = None
        if request.param != "sqlite":
            program = redis_servers()[request.param]
            queue_url = running.enter_context(redis_server(program, folder / "redis")).url
        files = tuple(
            service_file(folder, name, echo_port, kilobytes)
            for name, kilobytes in (("photog_check", 20480), ("qservice", 8), ("small", 8))
        )
        settings = Settings(data_dir=folder, token=TOKEN, service_files=files, queue_url=queue_url)
        app = build_app(settings, FakeEngines(FakeEngine()))
        yield running.enter_context(listening(app, settings))


def service_file(folder: Path, name: str, port: int, kilobytes: int) -> Path:
    size = {"max_payload_size_kb": kilobytes}
    content = {
        "metadata": {"name": name, "type": "Async", "rpc": {"worker_threads": 5}},
        "queue": {"memory": 64000, "source": size, "sink": size},
        "containers": [{"image": "registry/echo:1", "port": port}],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def run(program: str, *arguments: str, timeout_s: float = 60) -> str:
    done = subprocess.run(
        [str(client_python()), "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_the_calls_of_the_portrait_document(url: str):
    index, request_id, attributes, kept, result, tags, gone = json.loads(
        run(PORTRAIT, url, TOKEN).splitlines()[0]
    )
    assert index == "1"
    assert result == kept == '[{"size": 81, "path": "/"}]'
    assert tags.keys() == {"requestId", "ts@source", "ts@sink"}
    assert tags["requestId"] == request_id
    assert gone == 0
    assert attributes["stream.approxMaxLength"] == "1439"
    assert attributes["consumers.list.[0]"].startswith("Id: photog_check.photog-check-")


def test_tags_priorities_watches_and_errors(url: str):
    out = json.loads(run(VERBS, url, TOKEN).splitlines()[0])
    assert out["by_tag"] == ["a"]
    assert out["order"] == ["b", "a"]
    assert out["search"] == {"ConsumerId": "", "IsPending": False, "WaitCount": 1}
    assert out["unknown"] == {}
    assert (out["commit"], out["delete"], out["truncate"]) == ("OK", "OK", "OK")
    assert (out["length"], out["left"]) == ("0", [3])
    assert [code for code, _ in out["errors"]] == [401, 413]
    assert "Authorization Failed" in out["errors"][0][1]
    assert out["waiting"] == 502


@pytest.mark.parametrize("names", [SHORT, pytest.param(LONG, marks=pytest.mark.slow)])
def test_the_clients_own_tests(url: str, names: tuple[str, ...]):
    report = run(OWN_TESTS, url, TOKEN, *names, timeout_s=280)
    assert report.count("... ok") == len(names)
