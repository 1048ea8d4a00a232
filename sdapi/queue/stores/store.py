"""What a queue store promises, and the values that go in and out.

A store keeps the items of many queues and, for each group of consumers, who holds what. Every
method is one atomic step, but for those that may concern a whole queue (`delete`, `truncate`,
`drop_undelivered`, `requeue`): they go by portions, so that all others get their turn, and each
portion is. Items that come meanwhile stay. What it has answered is durable, but for the presence of
consumers, which ends with their process.

Indexes start at 1 in every queue and are never used again. Times are the store's own, so that the
clocks of callers do not matter.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from sdapi.errors import SDAPIError

#: Redis keeps an index as a double; a put every microsecond takes three centuries to get there.
MAX_INDEX = (1 << 53) - 1
#: of an item
MAX_PRIORITY = (1 << 31) - 1
#: what a consumer with auto commit may have on its way to its socket
AUTO_COMMIT_WINDOW = 64
#: items handed out in one round
ROUND = 64
#: data in one answer, unless its first item alone has more
ANSWER_BYTES = 64 << 20
#: items that one step removes or moves, where there may be any number of them
PORTION = 1000
#: data that is handed to a consumer ahead of what has been sent to it, unless one item has more
UNSENT_BYTES = 8 << 20
#: how long a consumer that has gone is still listed
GONE_KEPT_MS = 300_000
#: the tag that holds the request id
REQUEST_ID = "requestId"
#: the tag that tells a failed result, and its status
LAST_CODE = "lastCode"


class QueueStoreUnavailable(SDAPIError):
    """The store cannot be reached now; the request may be repeated."""

    status, code = 503, "queue_store_unavailable"


class QueueIsFull(SDAPIError):
    status, code = 429, "queue_full"


class RequestIdTaken(SDAPIError):
    """Another item of the queue has the request id, with other content, or the sink its result."""

    status, code = 409, "request_id_taken"

    @classmethod
    def in_queue(cls, request_id: str) -> "RequestIdTaken":
        return cls(f"requestId {request_id} is in the queue with other data")

    @classmethod
    def in_sink(cls, request_id: str) -> "RequestIdTaken":
        text = "has a result that nobody has taken yet: take it, or use another id"
        return cls(f"requestId {request_id} {text}")


@dataclass(frozen=True, slots=True)
class QueueName:
    """One queue: a service's input or sink, or the rear (dead letters) of either."""

    service: str
    is_sink: bool = False
    is_rear: bool = False

    def __str__(self) -> str:
        return self.service + "/sink" * self.is_sink + "#rear" * self.is_rear

    @classmethod
    def parse(cls, text: str) -> "QueueName":
        """The inverse of `str`."""
        rest, rear, _ = text.partition("#rear")
        service, sink, _ = rest.partition("/sink")
        return cls(service, bool(sink), bool(rear))

    @property
    def is_source(self) -> bool:
        return not self.is_sink and not self.is_rear

    @property
    def rear(self) -> "QueueName":
        return QueueName(self.service, self.is_sink, True)

    @property
    def sink(self) -> "QueueName":
        return QueueName(self.service, True)

    @property
    def source(self) -> "QueueName":
        return QueueName(self.service)


@dataclass(frozen=True, slots=True)
class NewItem:
    """What is put. `path` is the inference path, `tags` holds the request id as well."""

    request_id: str
    tags: Mapping[str, str]
    data: bytes
    priority: int = 0
    path: str = ""
    content_type: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Item(NewItem):
    """An item of a queue; `last_code` is the status of its latest failed delivery, 0 for none."""

    index: int = 0
    deliveries: int = 0
    last_code: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """How much a queue may hold; with `evicts` the oldest give way, else a put is refused."""

    bytes: int
    evicts: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """Items with an index from `index` on and all these tags; -1 means the last `length` items.

    Fewer than `at_least` count as none. An answer is cut at `ANSWER_BYTES`.
    """

    index: int = 0
    length: int = 1
    at_least: int = 1
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item stands: who holds it, and how many go before it."""

    consumer: str = ""
    is_pending: bool = False
    waiting_before: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """A consumer as it joins; `id` tells this connection from an earlier one of the same name."""

    id: str
    group: str
    user: str
    node: str
    window: int = 1
    auto_commit: bool = False
    index_only: bool = False
    start: int = 0
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer as attributes show it; `idle_ms` since its last delivery or commit."""

    group: str
    user: str
    last_index: int
    pending: int
    idle_ms: int
    window: int
    auto_commit: bool
    tags: Mapping[str, str]
    #: since when it is gone; None while connected
    gone_ms: int | None = None
    left_pending: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    last_index: int
    pending: int
    consumers: int


@dataclass(frozen=True, slots=True)
class QueueStats:
    """A queue's figures; `first` and `last` are 0 when it is empty."""

    first: int = 0
    last: int = 0
    length: int = 0
    bytes: int = 0
    oldest_age_s: float = 0.0
    consumers: Sequence[Consumer] = ()
    groups: Sequence[Group] = ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """An item given to a consumer; `fence` proves later that it still holds it."""

    member_id: str
    fence: str
    item: Item


@dataclass(frozen=True, slots=True)
class Rules:
    """How items of a queue are handed out.

    `counting_group` is the one whose deliveries count; `max_delivery` 0 means no limit. While
    `full_sink` holds `full_at` bytes or more nothing is handed out to that group.
    """

    counting_group: str = ""
    max_delivery: int = 0
    full_sink: QueueName | None = None
    full_at: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What one round handed out.

    `exhausted` are items that had all their deliveries. `has_deferred` tells that some item was
    left to a consumer of another node which has more free places. `held_back` are consumers of this
    node that wait for no place and no item, but until more is sent of what they were handed.
    `members` are all that are connected to it: another one has been replaced, or taken for dead.
    """

    deliveries: Sequence[Delivery] = ()
    exhausted: Sequence[Item] = ()
    has_deferred: bool = False
    held_back: Collection[str] = ()
    members: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Requeued:
    """How many dead letters moved, and the request ids of those that stay.

    One stays while its queue has other data under its request id, or the sink a result of it.
    """

    moved: int
    left: Sequence[str] = ()


class Change(StrEnum):
    """What happened in a queue that somebody may wait for."""

    PUT = "put"  # an item came, or is there to be handed out again
    FREED = "freed"  # a consumer got a free place, or bytes were freed
    REPLACED = "replaced"  # another connection took over a consumer's name


@dataclass(frozen=True, slots=True)
class Event:
    """One change; `tags` are those of the item put, None when it could be any item."""

    change: Change
    queue: QueueName
    tags: Mapping[str, str] | None = None
    member_id: str = ""


Listener = Callable[[Event], None]


class Store(Protocol):
    """The items of all queues. Raises `QueueStoreUnavailable` when it cannot be asked now."""

    async def open(self, listener: Listener) -> None:
        """Connect; the listener is called in the event loop for every change anywhere."""
        ...

    async def close(self) -> None: ...

    # --- items ---

    async def put(self, queue: QueueName, item: NewItem, room: Room | None = None) -> int:
        """Store an item and return its index.

        A put whose request id is there with the same data answers the index of that item. With
        other data it is refused, and while the sink has a result of that id; a rear queue takes it,
        since its items are of requests that have ended. Raises `QueueIsFull`, `RequestIdTaken`.
        """
        ...

    async def get(self, queue: QueueName, query: Query, claim: str = "") -> list[Item]:
        """The first items that match, in index order.

        With `claim`, `<node>:<anything>`, they are reserved under that name until `settle`: no
        other claim nor consumer gets them. The node's end frees them.
        """
        ...

    async def settle(self, queue: QueueName, claim: str, *, delete: bool) -> None:
        """End a claim: its items are deleted, or free again."""
        ...

    async def count(
        self, queue: QueueName, tags: Mapping[str, str], priority: int | None = None
    ) -> int: ...

    async def place(self, queue: QueueName, group: str, index: int) -> Place | None:
        """Where an item stands for a group; None when it is not there."""
        ...

    async def stats(self, queue: QueueName) -> QueueStats: ...

    async def delete(self, queue: QueueName, indexes: Sequence[int]) -> int:
        """Remove items for every group, in flight or not; returns how many there were."""
        ...

    async def truncate(self, queue: QueueName, below: int) -> int:
        """Remove every item with a smaller index; returns how many."""
        ...

    async def drop_undelivered(self, queue: QueueName) -> None:
        """Remove what no consumer holds."""
        ...

    async def queues(self) -> list[QueueName]:
        """Every queue that was ever put to."""
        ...

    async def requeue(self, rear: QueueName, queue: QueueName) -> Requeued:
        """Move the items of a rear queue back, their deliveries forgotten."""
        ...

    # --- consumers ---

    async def join(self, queue: QueueName, member: Member) -> None:
        """Connect a consumer; one of the same group and user is replaced, its items freed."""
        ...

    async def leave(self, queue: QueueName, member: Member) -> None:
        """Disconnect it; what it holds can be handed out again."""
        ...

    async def take(
        self,
        queue: QueueName,
        group: str,
        node: str,
        rules: Rules,
        *,
        insists: bool,
        unsent: Mapping[str, int] | None = None,
    ) -> Taken:
        """Hand out items to the group's consumers at this node.

        Items go in order of priority, then index; each to the consumer with the most free places,
        then the longest idle. Where that one sits at another node the item is left to it, unless
        `insists`. A round ends at `ROUND` items or `ANSWER_BYTES`. A consumer with `unsent` bytes
        (by its id) is handed no more than `UNSENT_BYTES` with them, and nothing out of order.
        """
        ...

    async def commit(self, queue: QueueName, group: str, indexes: Sequence[int]) -> None:
        """Finish items for a group; those that no other connected group still needs leave."""
        ...

    async def reject(
        self, queue: QueueName, group: str, user: str, indexes: Sequence[int], *, retire: bool
    ) -> None:
        """Give items back, rather to another consumer; `retire` hands nothing more to this one."""
        ...

    async def release(
        self, queue: QueueName, group: str, index: int, fence: str, *, counts: bool, code: int = 0
    ) -> bool:
        """Give back an item that a consumer holds; False when the fence is not valid any more."""
        ...

    async def finish(
        self,
        queue: QueueName,
        group: str,
        index: int,
        fence: str,
        result: NewItem | None,
        rear: QueueName | None = None,
        room: Room | None = None,
    ) -> bool:
        """Put the result into the sink and remove the item, both or nothing.

        An empty fence stands for an item that nobody holds. The sink keeps one item for a request
        id, and gives up its oldest for it where `room` evicts; it takes the result in any case.
        With `rear` the item moves there. False when the item is gone or the fence is not valid.
        """
        ...

    async def release_idle(self, queue: QueueName, idle_ms: int) -> None:
        """Give back every item that is held longer than this."""
        ...

    # --- nodes ---

    async def begin_node(self, node: str) -> None:
        """The first beat of this process, and the first after it was taken for dead."""
        ...

    async def beat(self, node: str) -> bool:
        """Show that this process lives; False, and no more, until `begin_node`."""
        ...

    async def beats(self) -> dict[str, int]:
        """How often each node has beaten: also those that consumers and claims name, 0 times."""
        ...

    async def bury_node(self, node: str, beats: int) -> None:
        """Free what a node's consumers hold, unless it has beaten meanwhile."""
        ...
