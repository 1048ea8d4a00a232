"""Service files: the JSON that people deploy with on PAI-EAS (contract 11.1)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson

from sdapi.queue.config.spec import (
    NAME,
    Autoscaler,
    Container,
    Program,
    QueueLimits,
    ServiceSpec,
    Storage,
)
from sdapi.queue.protocol.wire import parse_duration
from sdapi.settings import Settings

DEFAULT_SERVICE = "sd_async"
#: the names that the documents give the portrait services, and what they run
PORTRAIT_SERVICES = {
    "photog_check": Program.PORTRAIT_CHECK,
    "photog_train_pmml": Program.PORTRAIT_TRAIN,
    "photog_pre_pmml": Program.PORTRAIT_INFER,
}
#: each is a consumer of its own
_MAX_INSTANCES = 100
_MAX_PORT = 65535
_SYNC_KEEPALIVE_MS, _ASYNC_KEEPALIVE_MS = 5000, 600_000

#: the images we stand for, by the last part of their names
_IMAGES = (
    (re.compile(r"photog(_pub)?:check"), Program.PORTRAIT_CHECK),
    (re.compile(r"photog(_pub)?:train"), Program.PORTRAIT_TRAIN),
    (re.compile(r"photog(_pub)?:infer"), Program.PORTRAIT_INFER),
    (re.compile(r".*stable-diffusion-webui"), Program.WEBUI),
)
#: dotted names that are understood and change nothing here, and why
_IGNORED = {
    "metadata.cpu": "processes take what the machine has",
    "metadata.memory": "processes take what the machine has",
    "metadata.gpu": "see --devices",
    "cloud.computing": "the machine is this one",
    "cloud.networking": "the network is this machine's",
    "features": "the disk is this machine's",
    "queue.cpu": "the queue runs inside the server",
    "queue.min_replica": "the queue runs inside the server",
    "queue.resource": "the queue runs inside the server",
}
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])')


class ServiceFileError(ValueError):
    """A service that cannot be understood; the text is for the person who wrote it."""


@dataclass(frozen=True, slots=True)
class ServiceFile:
    """A service, and a sentence for each of its fields that has no effect."""

    spec: ServiceSpec
    warnings: tuple[str, ...] = ()


def load_services(settings: Settings) -> list[ServiceSpec]:
    """The services of the files and flags; without any, `sd_async` and those of portraits."""
    specs = [read_service_file(path).spec for path in settings.service_files]
    specs += [_from_flag(text) for text in settings.services]
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise ServiceFileError(f"there are several services of the name {name!r}")
    return specs or _default_services(settings)


def _default_services(settings: Settings) -> list[ServiceSpec]:
    names = [DEFAULT_SERVICE, *(PORTRAIT_SERVICES if settings.portrait else ())]
    return [_from_flag(name) for name in names]


def _from_flag(text: str) -> ServiceSpec:
    name, _, kind = text.partition(":")
    if not NAME.fullmatch(name) or kind not in ("", "sync", "async"):
        raise ServiceFileError(f"--service {text!r}: it takes NAME, NAME:async or NAME:sync")
    program = PORTRAIT_SERVICES.get(name, Program.WEBUI)
    return ServiceSpec(name, is_async=kind != "sync", containers=(Container(program),))


def read_service_file(path: Path) -> ServiceFile:
    """Raises `ServiceFileError`, which names the file and what is wrong in it."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors of Windows begin with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceFileError(f"cannot read the service file {path}: {error}") from error
    try:
        return parse_service(text)
    except ServiceFileError as error:
        raise ServiceFileError(f"{path}: {error}") from error


def parse_service(text: str) -> ServiceFile:
    """A service of its JSON; trailing commas are let pass, the product's own samples have them."""
    try:
        content = orjson.loads(_TRAILING_COMMA.sub(lambda m: m[1] or "", text))
    except orjson.JSONDecodeError as error:
        raise ServiceFileError(f"not JSON: {error}") from error
    root = _Section("", content)
    spec = _spec(root)
    return ServiceFile(spec, tuple(root.warnings()))


class _Section:
    """An object of the file: reads fields by type, and knows what nobody has asked for."""

    def __init__(self, name: str, content: object) -> None:
        if not isinstance(content, dict):
            raise ServiceFileError(f"{name or 'the file'} is an object in braces")
        self._name = name
        self._content = cast(dict[str, Any], content)
        self._used: set[str] = set()
        self._sections: list[_Section] = []

    def value(self, key: str, kind: type | tuple[type, ...], default: Any, word: str) -> Any:
        self._used.add(key)
        found = self._content.get(key)
        if found is None:
            return default
        is_bool = isinstance(found, bool) and kind is not bool
        if not isinstance(found, kind) or is_bool:
            raise ServiceFileError(f"{self.full(key)} is {word}, not {str(found)[:60]!r}")
        return found

    def text(self, key: str, default: str = "") -> str:
        return self.value(key, str, default, "a text")

    def whole(self, key: str, default: int, low: int = 0, high: int | None = None) -> int:
        found = self.value(key, int, default, "a whole number")
        if found < low:
            raise ServiceFileError(f"{self.full(key)} is at least {low}, not {found}")
        if high is not None and found > high:
            raise ServiceFileError(f"{self.full(key)} is at most {high}, not {found}")
        return found

    def number(self, key: str, default: float) -> float:
        return float(self.value(key, (int, float), default, "a number"))

    def flag(self, key: str) -> bool:
        return self.value(key, bool, False, "true or false")

    def section(self, key: str) -> "_Section":
        section = _Section(self.full(key), self.value(key, dict, {}, "an object in braces"))
        self._sections.append(section)
        return section

    def list(self, key: str) -> list["_Section"]:
        found = self.value(key, list, [], "a list")
        sections = [_Section(f"{self.full(key)}[{i}]", one) for i, one in enumerate(found)]
        self._sections.extend(sections)
        return sections

    def has(self, key: str) -> bool:
        return self._content.get(key) is not None

    def full(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key

    def warnings(self) -> Iterable[str]:
        """A sentence for each field that was not asked for."""
        for key, value in self._content.items():
            name = self.full(key)
            if key not in self._used and value not in (None, "", {}, []):
                why = _IGNORED.get(name, "it is not known here")
                yield f"{name} has no effect: {why}"
        for section in self._sections:
            yield from section.warnings()


def _spec(root: _Section) -> ServiceSpec:
    metadata = root.section("metadata")
    root.section("cloud")  # each part of it that is there gets a warning of its own
    name = metadata.text("name")
    if not NAME.fullmatch(name):
        raise ServiceFileError(f"metadata.name {name!r} is no name of letters, digits and _")
    kind = metadata.text("type")
    if kind not in ("", "Async"):
        raise ServiceFileError(f"metadata.type is Async or absent, not {kind!r}")
    containers = root.list("containers")
    if not containers:
        raise ServiceFileError("containers is missing: what answers the requests")
    return ServiceSpec(
        name=name,
        is_async=kind == "Async",
        instances=metadata.whole("instance", 1, high=_MAX_INSTANCES),
        **_rpc(metadata, is_async=kind == "Async"),
        **_queue(root.section("queue")),
        autoscaler=_autoscaler(root.section("autoscaler")) if root.has("autoscaler") else None,
        storage=tuple(_storage(each) for each in root.list("storage")),
        containers=tuple(_container(each) for each in containers),
    )


def _rpc(metadata: _Section, *, is_async: bool) -> dict[str, Any]:
    """Nested, or flat as `rpc.keepalive`; the document's own sample spells `rpc.work_threads`."""
    rpc = metadata.section("rpc")
    keepalive_ms = _ASYNC_KEEPALIVE_MS if is_async else _SYNC_KEEPALIVE_MS
    threads = 5
    for section, prefix in ((metadata, "rpc."), (rpc, "")):
        keepalive_ms = section.whole(f"{prefix}keepalive", keepalive_ms, 1)
        for spelling in ("work_threads", "worker_threads"):
            threads = section.whole(prefix + spelling, threads, 1)
    return {"keepalive_s": keepalive_ms / 1000, "worker_threads": threads}


def _queue(queue: _Section) -> dict[str, Any]:
    policy = queue.text("dead_message_policy", "Rear")
    if policy not in ("Rear", "Drop"):
        raise ServiceFileError(f"queue.dead_message_policy is Rear or Drop, not {policy!r}")
    source, sink = queue.section("source"), queue.section("sink")
    share = sink.number("memory_ratio", 0.5)
    if not 0 < share < 1:
        raise ServiceFileError(f"queue.sink.memory_ratio is between 0 and 1, not {share}")
    return {
        "max_delivery": queue.whole("max_delivery", 5),
        "max_idle_s": _max_idle_s(queue),
        "drops_dead": policy == "Drop",
        "memory_bytes": queue.whole("memory", 4000, 1) << 20,
        "sink_share": share,
        "source": _limits(source),
        "sink": _limits(sink),
    }


def _max_idle_s(queue: _Section) -> float | None:
    text = queue.text("max_idle")
    try:
        return parse_duration(text) or None if text else None
    except ValueError as error:
        raise ServiceFileError(f"queue.max_idle: {error}") from error


def _limits(queue: _Section) -> QueueLimits:
    kilobytes = queue.whole("max_payload_size_kb", 8, 1)
    return QueueLimits(kilobytes << 10, queue.flag("auto_evict"))


def _autoscaler(section: _Section) -> Autoscaler:
    backlog = section.section("strategies").number("queue[backlog]", 1.0)
    down = section.section("behavior").section("scaleDown")
    scaler = Autoscaler(
        minimum=section.whole("min", 1),
        maximum=section.whole("max", 1, 1),
        backlog=backlog,
        stabilization_s=down.whole("stabilizationWindowSeconds", 300),
    )
    if backlog <= 0 or scaler.minimum > scaler.maximum:
        raise ServiceFileError("autoscaler: min is at most max, and queue[backlog] above zero")
    return scaler


def _storage(section: _Section) -> Storage:
    mount_path = section.text("mount_path")
    if not mount_path.startswith("/"):
        raise ServiceFileError(f"{section.full('mount_path')} is an absolute path")
    section.section("properties").text("resource_type")
    oss, nfs = section.section("oss"), section.section("nfs")
    nfs.text("server")
    is_read_only = any([oss.flag("readOnly"), nfs.flag("readOnly")])  # both count as asked for
    target = oss.text("path").rstrip("/") or nfs.text("path")
    return Storage(mount_path, target, is_read_only)


def _container(section: _Section) -> Container:
    image = section.text("image")
    port = section.whole("port", 0, high=_MAX_PORT)
    program = next((p for pattern, p in _IMAGES if pattern.match(image.rpartition("/")[2])), None)
    if program is None and not port:
        raise ServiceFileError(
            f"{section.full('port')} is missing: {image!r} is called on its port"
        )
    env = tuple((each.text("name"), each.text("value")) for each in section.list("env"))
    return Container(program or Program.OTHER, image, section.text("script"), port, env)
