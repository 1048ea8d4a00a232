"""The prompts of a portrait's passes. Contract: portrait-pipeline 3.1, 5.2, 5.3."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sdapi.portrait.base.words import Style, Words

FILM_WEIGHT: Final = 0.65
_TEMPLATE_WEIGHT: Final = 0.25
SCENE_WEIGHT: Final = 0.80
_MALE: Final = ("male", "man", "m", "boy", "男")
_FEMALE: Final = ("female", "woman", "f", "girl", "女")
#: a text that has one of these says how much of the person is seen
_FRAMING_WORDS: Final = (
    *("portrait", "close-up", "closeup", "upper body", "half body", "half-length", "headshot"),
    *("full body", "full-length", "bust", "selfie"),
)


@dataclass(frozen=True, slots=True)
class Speaker:
    """Words of one checkpoint, and the style LoRAs that are to act in every pass."""

    words: Words
    style: Style
    #: name -> weight
    style_loras: tuple[tuple[str, float], ...] = ()

    def person(self, trigger: str, lora: str, weight: float, sex: str) -> str:
        """A trained person."""
        return self._somebody(trigger, [(lora, weight)], sex)

    def reference(self, sex: str) -> str:
        """Somebody of whom there is a picture alone."""
        return self._somebody(self.words.reference, [], sex)

    def nobody(self) -> str:
        """The background, in which no LoRA of a person is to act."""
        return joined([*tags(self.style_loras), self.words.additional, self.style.positive])

    def template(
        self, text: str, trigger: str, loras: Iterable[tuple[str, float]], sex: str
    ) -> str:
        """A template made from text; one that says nothing of the framing gets a hint."""
        has_framing = any(word in text.lower() for word in _FRAMING_WORDS)
        return joined(
            [
                text,
                "" if has_framing else self.words.template_framing,
                self.words.template_looking,
                trigger,
                *tags([*loras, *self.style_loras]),
                self._looks(self.style.template_positive, sex),
            ]
        )

    @property
    def template_negative(self) -> str:
        """What a template is not to be."""
        return joined([self.style.template_negative, self.words.negative])

    @staticmethod
    def template_lora(name: str) -> tuple[str, float]:
        """How much a person's LoRA acts in a template."""
        return name, _TEMPLATE_WEIGHT

    def _somebody(self, who: str, loras: Iterable[tuple[str, float]], sex: str) -> str:
        weights = tags([*loras, *self.style_loras])
        looks = self._looks(self.style.positive, sex)
        return joined([who, self._sex(sex), *weights, self.words.additional, looks])

    def _looks(self, positive: str, sex: str) -> str:
        """Men wear no make-up."""
        return without(positive, self.words.makeup) if _is_male(sex) else positive

    def _sex(self, sex: str) -> str:
        if _is_male(sex):
            return self.words.male
        return self.words.female if sex.strip().lower() in _FEMALE else ""


def joined(parts: Iterable[str]) -> str:
    """The parts that say something, with commas."""
    return ", ".join(part for part in parts if part)


def tags(loras: Iterable[tuple[str, float]]) -> list[str]:
    """LoRAs as prompts name them."""
    return [f"<lora:{name}:{weight:g}>" for name, weight in loras]


def without(prompt: str, part: str) -> str:
    """A prompt without one of its parts."""
    return joined(each.strip() for each in prompt.split(",") if each.strip() != part)


def _is_male(sex: str) -> bool:
    return sex.strip().lower() in _MALE
