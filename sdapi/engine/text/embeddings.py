"""Finding the names of embeddings in tokenised prompts (contract: webui-generation 2.7, 13.4)."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from sdapi.engine.networks.embedding_file import Embedding, is_picture, read_embedding
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import ModelUnusable


class EmbeddingIndex:
    """The embeddings that prompts may name, for text encoders of some widths.

    A file is read when a prompt first has its name; a picture, which holds its name, at once.
    """

    def __init__(
        self,
        files: Sequence[ModelFile],
        bundled: Sequence[Embedding],
        widths: tuple[int, ...],
        tokenize: Callable[[str], list[int]],
    ) -> None:
        self._widths = widths
        #: what was read, or why it cannot be used
        self._read: dict[ModelFile, Embedding | str] = {}
        named: dict[str, ModelFile | Embedding] = {self._name(file): file for file in files}
        for embedding in bundled:
            # One that lies in the folder goes before one that a network brings along.
            named.setdefault(embedding.name, embedding)
        self._by_first: defaultdict[int, list[tuple[tuple[int, ...], ModelFile | Embedding]]]
        self._by_first = defaultdict(list)
        tokenised = ((tuple(tokenize(name)), source) for name, source in named.items())
        for name, source in sorted(tokenised, key=lambda entry: -len(entry[0])):
            if name:
                self._by_first[name[0]].append((name, source))

    def at(
        self, tokens: Sequence[int], position: int, refused: set[str]
    ) -> tuple[Embedding, int] | None:
        """The embedding whose name stands at a position, longest first, and the name's length.

        `refused` takes why those could not be used that would have been it.
        """
        for name, source in self._by_first.get(tokens[position], ()):
            if tuple(tokens[position : position + len(name)]) != name:
                continue
            found = source if isinstance(source, Embedding) else self._load(source)
            if isinstance(found, str):
                refused.add(found)
            elif not found.fits(self._widths):
                refused.add(
                    f"embedding not used: {found.name} has vectors of {found.width}, "
                    f"this checkpoint's have {sum(self._widths)}"
                )
            else:
                return found, len(name)
        return None

    def _name(self, file: ModelFile) -> str:
        loaded = self._load(file) if is_picture(file.path) else None
        return loaded.name if isinstance(loaded, Embedding) else file.path.stem

    def _load(self, file: ModelFile) -> Embedding | str:
        if file not in self._read:
            try:
                self._read[file] = read_embedding(file.path)
            except ModelUnusable as error:
                self._read[file] = f"embedding not used: {error}"
        return self._read[file]
