"""Finds and loads extensions. One that fails is reported, and costs the others nothing."""

import importlib.util
import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy
from fastapi import APIRouter

from sdapi.extensions import PROJECT, Hooks
from sdapi.extensions.controlnet import hooks as controlnet
from sdapi.extensions.scripts import request_fields, shipped
from sdapi.services.scripts.loaded import LoadedExtension
from sdapi.services.scripts.script import Script, SelectableScript

if TYPE_CHECKING:
    from sdapi.services.container import Services

log = logging.getLogger(__name__)

ENTRY_POINTS = "sdapi.extensions"
#: part of the server; their scripts are listed before those of others, and after
FIRST, LAST = (shipped, controlnet), (request_fields,)


@dataclass(slots=True)
class Extensions:
    """The extensions of one server and what their hooks made."""

    manager: pluggy.PluginManager
    #: those that are not part of the server
    loaded: list[LoadedExtension] = field(default_factory=list[LoadedExtension])

    @classmethod
    def load(
        cls, folder: Path, *, wants_others: bool = True, disabled: Iterable[str] = ()
    ) -> "Extensions":
        """The built-in ones, packages, and the files of a folder; the last two if wanted."""
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(Hooks)
        for module in FIRST:
            manager.register(module, module.__name__)
        extensions = cls(manager)
        if wants_others:
            skipped = frozenset(disabled)
            for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda e: e.name):
                extensions._add(_of_package(entry), entry.load, skipped)
            for path in sorted(_files(folder)):
                extensions._add(_of_file(path), _importer(path), skipped)
        for module in LAST:
            manager.register(module, module.__name__)
        return extensions

    def _add(
        self, extension: LoadedExtension, load: Callable[[], Any], disabled: frozenset[str]
    ) -> None:
        if extension.name in disabled:
            self.loaded.append(replace(extension, enabled=False))
            return
        self.loaded.append(extension)
        try:
            module = load()
            self.manager.register(module, extension.name)
            self.manager.check_pending()
        except Exception as error:
            self._report(extension.name, "cannot be loaded", error)
            if self.manager.has_plugin(extension.name):
                self.manager.unregister(name=extension.name)

    def scripts(self) -> list[Script | SelectableScript]:
        """Every extension's scripts, in the order the extensions were found."""
        return self._gather(self.manager.hook.sdapi_scripts, Script | SelectableScript, {})

    def routers(self, services: "Services") -> list[APIRouter]:
        """Every extension's routes."""
        hook, arguments = self.manager.hook.sdapi_routers, {"services": services}
        return self._gather(hook, APIRouter, arguments)

    def _gather(self, hook: Any, kind: Any, arguments: dict[str, Any]) -> list[Any]:
        """What each extension's hook returns; pluggy would let one failure hide the rest."""
        order = {name: place for place, (name, _) in enumerate(self.manager.list_name_plugin())}
        made: list[Any] = []
        for impl in sorted(hook.get_hookimpls(), key=lambda impl: order[impl.plugin_name]):
            try:
                found = list(impl.function(**{n: arguments[n] for n in impl.argnames}))
                for each in found:
                    if not isinstance(each, kind):
                        raise TypeError(f"{hook.name} returned {each!r:.100}")
            except Exception as error:
                self._report(impl.plugin_name, f"failed in {hook.name}", error)
            else:
                made += found
        return made

    def _report(self, name: str, what: str, error: Exception) -> None:
        log.error("the extension %s %s: %s: %s", name, what, type(error).__name__, error)
        log.debug("the extension %s", name, exc_info=error)
        text = f"{what}: {type(error).__name__}: {error}"
        self.loaded = [
            replace(each, error=text, enabled=False) if each.name == name else each
            for each in self.loaded
        ]


def _of_package(entry: EntryPoint) -> LoadedExtension:
    if entry.dist is None:
        return LoadedExtension(entry.name)
    metadata = entry.dist.metadata
    urls = [url.partition(",")[2].strip() for url in metadata.get_all("Project-URL") or []]
    remote = next(iter([*urls, *(metadata.get_all("Home-page") or [])]), "")
    return LoadedExtension(entry.name, remote=remote, version=entry.dist.version)


def _of_file(path: Path) -> LoadedExtension:
    return LoadedExtension(path.parent.name if path.stem == "__init__" else path.stem, path=path)


def _files(folder: Path) -> Iterable[Path]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith((".", "_")):
            continue
        if path.suffix == ".py" and path.is_file():
            yield path
        elif (path / "__init__.py").is_file():
            yield path / "__init__.py"


def _importer(path: Path) -> Callable[[], Any]:
    """Imports a file under a name of its own, so that it hides no package."""

    def load() -> Any:
        name = f"sdapi_extension_{_of_file(path).name}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickle look their module up
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    return load
