"""Prompts as data.

`words.json` has the usual ones, which are EasyPhoto's (Apache-2.0; see NOTICE). A checkpoint brings
words of its own, beside numbers, in the `portrait` object of its metadata file,
`<checkpoint>.json`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("words.json")


@dataclass(frozen=True, slots=True)
class Style:
    """What is said of how a picture is to look: of portraits, and of templates from text."""

    positive: str
    template_positive: str
    template_negative: str


@dataclass(frozen=True, slots=True)
class Words:
    """What is said to a checkpoint."""

    #: names the person; a trained LoRA knows it
    trigger: str
    #: in the trigger's place where nothing was trained
    reference: str
    additional: str
    #: an optional style LoRA by name; empty for none
    film_lora: str
    positive: str
    negative: str
    template_positive: str
    template_negative: str
    #: added to a text for a template that says nothing of the framing
    template_framing: str
    template_looking: str
    #: draws what training tries its weights on; `{person}` is a man or a woman
    id_photo: str
    anime_positive: str
    #: the same for illustrations, which are not to be kept from being some
    anime_template_negative: str
    validation_negative: str
    #: the part of `positive` that is left out for men
    makeup: str
    #: added for a person whose sex is known
    male: str
    female: str

    @property
    def realistic(self) -> Style:
        """Photos."""
        return Style(self.positive, self.template_positive, self.template_negative)

    @property
    def anime(self) -> Style:
        """Illustrations, which are told nothing of photos."""
        return Style(self.anime_positive, self.anime_positive, self.anime_template_negative)

    @classmethod
    def read(cls, own: Mapping[str, Any]) -> "Words":
        """The usual words with a checkpoint's own over them."""
        values: dict[str, str] = json.loads(_FILE.read_text(encoding="utf-8"))
        names = {field.name for field in fields(cls)}
        values |= {key: own[key] for key in names & set(own) if isinstance(own[key], str)}
        return cls(**values)
