"""Which store holds an object: by the scheme of its URL, or the mount it is below."""

import threading
from collections.abc import Callable, Mapping

from sdapi.object_url import ObjectUrl
from sdapi.services.storage.places import Places
from sdapi.services.storage.stores.fsspec_store import FsspecStore
from sdapi.services.storage.stores.local import LocalStore
from sdapi.services.storage.stores.oss import OssStore
from sdapi.services.storage.stores.oss_config import ConfigError, OssConfig
from sdapi.services.storage.stores.store import ObjectStore, Reason, StoreError
from sdapi.settings import Mount, Settings


class Stores:
    """The stores of one server, each made when it is first asked for."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        #: guards the stores
        self._lock = threading.Lock()
        self._stores: dict[str, ObjectStore] = {}

    def store(self, url: ObjectUrl) -> ObjectStore:
        """The store of a URL's scheme; raises `StoreError` where it is not set up."""
        with self._lock:
            if url.scheme not in self._stores:
                try:
                    self._stores[url.scheme] = self._make(url.scheme)
                except ConfigError as error:
                    raise StoreError(Reason.CREDENTIALS, f"{url}: {error}") from error
            return self._stores[url.scheme]

    def mounted(self, mount: Mount) -> ObjectStore:
        """The store that a mounted folder shows."""
        assert mount.oss is not None
        return LocalStore(ObjectUrl.parse(mount.oss), mount.on_disk)

    def _make(self, scheme: str) -> ObjectStore:
        if scheme == "oss":
            return OssStore(OssConfig.from_environ(self._environ))
        return FsspecStore(scheme)


def start_problem(
    settings: Settings, stores: Stores, warn: Callable[[str], None], places: Places | None = None
) -> str | None:
    """What is wrong with the stores that flags name, as far as it can be known at the start.

    A store that does not answer is no reason not to start: its files wait. Blocks.
    """
    places = places or Places(settings)
    for mount in settings.mounts:
        if settings.sign_urls_s and mount.oss and not places.uploads(mount):
            warn(
                f"--sign-urls: no links for {mount.path}: it is a FUSE mount, which uploads itself"
            )
    written = [mount for mount in settings.mounts if not mount.is_read_only]
    named = [(f"--mount {m.path}", m.oss) for m in written if m.oss and places.uploads(m)]
    named += [("--allow-oss", prefix) for prefix in settings.allow_oss]
    for flag, prefix in dict.fromkeys(named):
        url = ObjectUrl.parse(prefix)
        try:
            stores.store(url).check(url)
        except StoreError as error:
            if not error.is_passing:
                return f"{flag}: {error}"
            warn(f"{flag}: {error}; files wait in the outbox until it can be reached")
    return None
