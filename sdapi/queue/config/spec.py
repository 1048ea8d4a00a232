"""What a service is: its name, limits and program, as its service JSON or a flag tells."""

import hashlib
import re
from dataclasses import dataclass, field
from enum import StrEnum

from sdapi.queue.stores.store import QueueName, Room, Rules

NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
#: the part of a queue's memory that items may use
_USABLE = 0.9


class Program(StrEnum):
    """Which of our programs an image stands for; any other one is called on its port."""

    WEBUI = "webui"
    PORTRAIT_CHECK = "portrait-check"
    PORTRAIT_TRAIN = "portrait-train"
    PORTRAIT_INFER = "portrait-infer"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Limits of one of a service's two queues."""

    max_payload_bytes: int = 8 << 10
    evicts: bool = False


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """How many instances are wanted; `backlog` is that of one instance."""

    minimum: int
    maximum: int
    backlog: float
    stabilization_s: int = 300


@dataclass(frozen=True, slots=True)
class Storage:
    """A folder of the inference process, and what is mounted there (`oss://…` or a path)."""

    mount_path: str
    target: str
    is_read_only: bool = False


@dataclass(frozen=True, slots=True)
class Container:
    program: Program
    image: str = ""
    script: str = ""
    port: int = 0
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service; the first container is the one its requests go to."""

    name: str
    is_async: bool = True
    instances: int = 1
    keepalive_s: float = 3600.0
    worker_threads: int = 1
    max_delivery: int = 1
    max_idle_s: float | None = None
    drops_dead: bool = False
    memory_bytes: int = 4000 << 20
    sink_share: float = 0.5
    source: QueueLimits = QueueLimits(20480 << 10)
    sink: QueueLimits = QueueLimits(20480 << 10)
    autoscaler: Autoscaler | None = None
    storage: tuple[Storage, ...] = ()
    containers: tuple[Container, ...] = (Container(Program.WEBUI),)

    @property
    def container(self) -> Container:
        """Where the requests go."""
        return self.containers[0]

    @property
    def dashed(self) -> str:
        return self.name.replace("_", "-")

    @property
    def mark(self) -> str:
        """Eight hex digits of the service's own, the same after a restart."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:8]

    @property
    def source_queue(self) -> QueueName:
        return QueueName(self.name)

    def limits(self, queue: QueueName) -> QueueLimits:
        return self.sink if queue.is_sink else self.source

    def room(self, queue: QueueName) -> Room:
        """What a queue may hold."""
        share = self.sink_share if queue.is_sink else 1 - self.sink_share
        return Room(int(_USABLE * self.memory_bytes * share), self.limits(queue).evicts)

    def rules(self, queue: QueueName) -> Rules:
        """How a queue's items are handed out: deliveries to inference count."""
        if queue.is_sink or queue.is_rear:
            return Rules()
        sink, room = queue.sink, self.room(queue.sink)
        if room.evicts:  # never full
            return Rules(self.name, self.max_delivery)
        return Rules(self.name, self.max_delivery, sink, room.bytes)

    @property
    def room_of_results(self) -> Room | None:
        """What the sink may hold, where results that are older give way to it."""
        room = self.room(self.source_queue.sink)
        return room if room.evicts else None
