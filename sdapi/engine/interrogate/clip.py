"""A caption by BLIP (Li et al. 2022), then the phrases that CLIP (Radford et al. 2021) finds near.

Models are folders as transformers saves them; nothing is downloaded.
Contract: webui-api 11.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from sdapi.errors import ModelUnusable, NoModel

_CONFIG = "config.json"
#: `flavors.top3.txt` adds three phrases, `mediums.txt` one
_TOP = re.compile(r"\.top(\d+)$")
_TEXT_BATCH = 256


@dataclass(frozen=True, slots=True)
class InterrogateOptions:
    """The server's `interrogate_*` options."""

    beams: int = 1
    min_length: int = 24
    max_length: int = 48
    #: phrases of a category that are compared, 0 for all
    limit: int = 1500
    skipped: frozenset[str] = frozenset()
    shows_ranks: bool = False


@dataclass(frozen=True, slots=True)
class Category:
    """Phrases of one kind, of which the `count` nearest are told."""

    name: str
    count: int
    phrases: tuple[str, ...]


@dataclass(slots=True)
class ClipInterrogator:
    """Loads its models at the first picture; belongs to one thread."""

    blip_folder: Path
    clip_folder: Path
    categories_folder: Path
    _blip: Any = None
    _blip_processor: Any = None
    _clip: Any = None
    _clip_processor: Any = None
    #: each category's phrases encoded before, and how many it was to have at most
    _phrases: dict[str, tuple[int, torch.Tensor]] = field(
        default_factory=dict[str, tuple[int, torch.Tensor]]
    )

    def describe(self, image: Image, options: InterrogateOptions) -> str:
        """A caption with the nearest phrases; raises `NoModel` or `ModelUnusable`."""
        self._load()
        image = image.convert("RGB")
        with torch.inference_mode():
            caption = self._caption(image, options)
            categories = [
                each
                for each in read_categories(self.categories_folder)
                if each.name not in options.skipped
            ]
            if not categories or not (self.clip_folder / _CONFIG).is_file():
                return caption
            return ", ".join([caption, *self._nearest(image, categories, options)])

    def _load(self) -> None:
        if self._blip is not None:
            return
        config = self.blip_folder / _CONFIG
        if not config.is_file():
            raise NoModel(
                f"interrogate needs a BLIP captioning model as transformers saves it: {config} "
                "is not there"
            )
        from transformers import BlipForConditionalGeneration, BlipProcessor

        self._blip_processor = _from_folder(BlipProcessor, self.blip_folder)
        self._blip = _from_folder(BlipForConditionalGeneration, self.blip_folder).eval()

    def _caption(self, image: Image, options: InterrogateOptions) -> str:
        inputs = self._blip_processor(images=image, return_tensors="pt")
        ids = self._blip.generate(
            **inputs,
            num_beams=max(options.beams, 1),
            min_length=max(options.min_length, 0),
            max_length=max(options.max_length, options.min_length, 1),
        )
        return str(self._blip_processor.decode(ids[0], skip_special_tokens=True)).strip()

    def _nearest(
        self, image: Image, categories: list[Category], options: InterrogateOptions
    ) -> list[str]:
        if self._clip is None:
            from transformers import CLIPModel, CLIPProcessor

            self._clip_processor = _from_folder(CLIPProcessor, self.clip_folder)
            self._clip = _from_folder(CLIPModel, self.clip_folder).eval()
        inputs = self._clip_processor(images=image, return_tensors="pt")
        seen = _normed(self._clip.get_image_features(**inputs))
        found: list[str] = []
        for category in categories:
            phrases = self._encoded(category, options.limit)
            shares = (100.0 * seen @ phrases.T).softmax(dim=-1)[0]
            top = shares.topk(min(category.count, len(shares)))
            for share, place in zip(top.values.tolist(), top.indices.tolist(), strict=True):
                phrase = category.phrases[place]
                found.append(f"({phrase}:{share * 100:.3f})" if options.shows_ranks else phrase)
        return found

    def _encoded(self, category: Category, limit: int) -> torch.Tensor:
        known = self._phrases.get(category.name)
        if known is not None and known[0] == limit:
            return known[1]
        phrases = category.phrases[:limit] if limit > 0 else category.phrases
        parts: list[torch.Tensor] = []
        for start in range(0, len(phrases), _TEXT_BATCH):
            batch = list(phrases[start : start + _TEXT_BATCH])
            inputs = self._clip_processor(
                text=batch, return_tensors="pt", padding=True, truncation=True
            )
            parts.append(_normed(self._clip.get_text_features(**inputs)))
        encoded = torch.cat(parts)
        self._phrases[category.name] = (limit, encoded)
        return encoded


def read_categories(folder: Path) -> list[Category]:
    """The phrase lists of a folder, one phrase a line; none where there is no folder."""
    if not folder.is_dir():
        return []
    found: list[Category] = []
    for path in sorted(folder.glob("*.txt")):
        lines = path.read_text("utf-8", errors="replace").splitlines()
        phrases = tuple(line.strip() for line in lines if line.strip())
        match = _TOP.search(path.stem)
        name = path.stem[: match.start()] if match else path.stem
        if phrases:
            found.append(Category(name, int(match[1]) if match else 1, phrases))
    return found


def _normed(features: Any) -> torch.Tensor:
    """Unit vectors of features, which newer transformers wrap in an output."""
    tensor = features if isinstance(features, torch.Tensor) else features.pooler_output
    return tensor / tensor.norm(dim=-1, keepdim=True)


def _from_folder(kind: Any, folder: Path) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:300]
        raise ModelUnusable(f"{folder}: cannot be loaded ({reason})") from error
