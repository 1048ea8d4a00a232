"""The networks that are active on one loaded checkpoint."""

from collections.abc import Generator, Hashable, Sequence
from contextlib import contextmanager

from sdapi.engine.checkpoints.checkpoint import Components
from sdapi.engine.networks.embedding_file import Embedding, make_embedding
from sdapi.engine.networks.hypernetwork import AttachedHypernetworks, LoadedHypernetwork
from sdapi.engine.networks.merge import MergedWeights, MergeReport
from sdapi.engine.networks.network_file import LoadedNetwork
from sdapi.engine.networks.selection import HypernetUse, LoraUse, NetworkSet
from sdapi.errors import ModelUnusable

Loras = Sequence[tuple[LoraUse, LoadedNetwork]]
Hypernets = Sequence[tuple[HypernetUse, LoadedHypernetwork]]


class ActiveNetworks:
    """What a checkpoint draws with beside its own weights.

    A set that is active already costs nothing; another replaces it; `NetworkSet()` leaves the
    checkpoint as its file has it, bit for bit.
    """

    def __init__(self, components: Components) -> None:
        self._merged = MergedWeights(components)
        self._attached = AttachedHypernetworks(components.unet)
        self._active: NetworkSet | None = NetworkSet()
        self._warnings: tuple[str, ...] = ()
        #: what the text encoders are made of, for the keys of encoded texts
        self.text_state: Hashable = ()
        #: names of the LoRAs that could be read, as their tags have them
        self.lora_names: tuple[str, ...] = ()
        #: those that the active networks bring along
        self.embeddings: tuple[Embedding, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes held beside the checkpoint's."""
        return self._merged.size_bytes + self._attached.size_bytes

    def warnings_of(self, wanted: NetworkSet) -> tuple[str, ...] | None:
        """What was wrong with a set when it was activated; None unless it is the active one."""
        return self._warnings if self._active == wanted else None

    @contextmanager
    def lifted(self) -> Generator[None]:
        """The checkpoint's own weights while the block runs; merged ones come back bit for bit."""
        with self._merged.lifted():
            yield

    def clear(self) -> None:
        """Leave the checkpoint as its file has it."""
        self._active = None
        self._attached.detach()
        self._merged.restore()
        self.text_state, self.lora_names, self.embeddings, self._warnings = (), (), (), ()
        self._active = NetworkSet()

    def forget(self) -> None:
        """Make the next set be activated anew: something of the checkpoint has been moved."""
        self._attached.detach()
        if self._active != NetworkSet():
            self._active = None

    def activate(
        self, wanted: NetworkSet, loras: Loras, hypernets: Hypernets, refused: Sequence[str]
    ) -> tuple[str, ...]:
        """Make `wanted` the active set; the others are what could be read of it.

        `refused` tells of what could not. Returns all warnings. On a failure the checkpoint is left
        as its file has it.
        """
        try:
            self._active = None
            report = self._merged.merge(loras)
            acting = self._attached.attach([(use.multiplier, net) for use, net in hypernets])
        except BaseException:
            self.clear()
            raise
        self.text_state = _text_state(loras)
        self.lora_names = tuple(dict.fromkeys(use.name for use, _ in loras))
        self.embeddings, refused_embeddings = _bundled(loras)
        self._warnings = (*refused, *_misfits(loras, report), *refused_embeddings)
        if hypernets and not acting:
            names = ", ".join(use.name for use, _ in hypernets)
            self._warnings += (f"hypernet not used: {names} fits no layer of this checkpoint",)
        self._active = wanted
        return self._warnings


def _text_state(loras: Loras) -> Hashable:
    """What of the networks tells in the text encoders' weights."""
    return tuple(
        (use.file, use.te, use.dyn)
        for use, network in loras
        if use.te != 0 and any(_is_text_layer(path) for path in network.layers)
    )


def _is_text_layer(path: str) -> bool:
    return path.startswith(("lora_te", "text_encoder"))


def _misfits(loras: Loras, report: MergeReport) -> list[str]:
    warnings: list[str] = []
    for name in dict.fromkeys(use.name for use, _ in loras):
        matched, misfits = report.matched[name], report.misfits[name]
        if matched == 0:
            warnings.append(f"lora not used: {name} fits no layer of this checkpoint")
        elif misfits:
            warnings.append(f"lora {name}: {misfits} of its {matched} layers do not fit")
    return warnings


def _bundled(loras: Loras) -> tuple[tuple[Embedding, ...], list[str]]:
    embeddings: list[Embedding] = []
    refused: list[str] = []
    for use, network in loras:
        for name, content in network.embeddings.items():
            try:
                embeddings.append(make_embedding(name, content, bundled_with=use.name))
            except ModelUnusable as error:
                refused.append(f"embedding not used: {name} of {use.name}: {error}")
    return tuple(embeddings), refused
