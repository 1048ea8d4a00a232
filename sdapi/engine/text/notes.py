"""What comes up while texts are encoded, for infotexts and warnings."""

from collections.abc import Iterable
from dataclasses import dataclass

from sdapi.engine.networks.embedding_file import Embedding


@dataclass(frozen=True, slots=True)
class TextNotes:
    """What the encoding of one text came upon."""

    #: used, in order
    embeddings: tuple[Embedding, ...] = ()
    #: why those that the text names were not used
    refused: tuple[str, ...] = ()
    #: whether a text, as it was encoded, has a bracket in it, escaped or not
    has_brackets: bool = False
    #: whether the two ways to count a prompt's steps give it different schedules
    depends_on_scheduling: bool = False


def ti_hashes(notes: Iterable[TextNotes], *, tells_bundled: bool = True) -> str:
    """The infotext's `TI hashes`: a later text's embeddings stand before an earlier one's.

    Empty when none was used. What two texts use stands there twice, as recorded.
    """
    groups = [
        [
            (each.name, each.shorthash or tells_bundled * each.bundled_with)
            for each in note.embeddings
        ]
        for note in notes
    ]
    told = (entry for group in reversed(groups) for entry in group)
    return ", ".join(f"{_plain(name)}: {shown}" for name, shown in told if shown)


def _plain(name: str) -> str:
    return name.replace(":", "").replace(",", "")
