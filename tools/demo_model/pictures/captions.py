"""Sentences that name what a picture shows, in many wordings; and wordings that say nothing."""

import numpy as np

from tools.demo_model.pictures.objects import Still
from tools.demo_model.pictures.person import Identity, View

_SUBJECTS = {
    "woman": ("woman", "woman", "young woman", "lady", "female", "person"),
    "man": ("man", "man", "young man", "guy", "male", "person"),
    "girl": ("girl", "girl", "young girl", "little girl", "child", "person"),
    "boy": ("boy", "boy", "young boy", "little boy", "child", "person"),
}
_PHOTO = ("a photo of", "photo of", "a picture of", "an image of", "a rendering of", "")
_FRAMES = {
    "close-up": ("a close-up portrait of", "close-up of", "a close-up photo of"),
    "portrait": ("a portrait of", "portrait of", "portrait photo of", "headshot of", *_PHOTO),
    "upper body": ("an upper body photo of", "half-length portrait of", "upper body shot of"),
}
_SHIRTS = ("{} shirt", "{} shirt", "{} t-shirt", "{} sweater", "{} top")
_QUALITY = ("best quality", "masterpiece", "highly detailed", "sharp focus", "soft light", "4k")
_FAULTS = ("blurry", "low quality", "worst quality", "ugly", "deformed", "bad anatomy", "text")
_KEEP = 0.9  # share of the attributes that an ordinary caption names


def article(noun: str) -> str:
    """The noun with a or an before it."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def caption_portrait(who: Identity, view: View, rng: np.random.Generator) -> str:
    """A full sentence, a list of tags or a few words, naming a random part of the attributes."""
    style = rng.random()
    keep = 1.0 if style < 0.3 else _KEEP if style < 0.85 else 0.3
    traits = [t for t in _traits(who, rng) if rng.random() < keep]
    if view.smile > 0.5 and rng.random() < keep:
        traits.append(str(rng.choice(["smiling", "a smile"])))
    names_shirt, names_background = rng.random() < keep, rng.random() < keep
    opening = _pick(_FRAMES[view.framing] if rng.random() < 0.75 else _PHOTO, rng)
    subject = _pick(_SUBJECTS[who.kind], rng)
    shirt = _pick(_SHIRTS, rng).format(view.shirt_name) if names_shirt else ""
    backdrop = f"{view.background_name} background" if names_background else ""
    if rng.random() < 0.35:
        parts = [f"{opening} {article(subject)}".strip(), *traits, shirt, backdrop]
        return _tags(parts, rng)
    return _sentence(opening, subject, traits, shirt, backdrop, rng)


def _traits(who: Identity, rng: np.random.Generator) -> list[str]:
    """Phrases for skin, hair, eyes, beard and glasses."""
    hair = f"{who.hair_name} hair"
    if who.hair_length != "bald" and rng.random() < 0.6:
        length = "shoulder-length" if who.hair_length == "medium" else who.hair_length
        hair = f"{length} {hair}"
    traits = ["a bald head" if who.hair_length == "bald" else hair, f"{who.skin_name} skin"]
    traits.append(f"{who.eyes_name} eyes")
    if who.has_beard:
        traits.append("a beard")
    if who.has_glasses:
        traits.append("glasses")
    return [str(t) for t in rng.permutation(traits)]


def _sentence(
    opening: str,
    subject: str,
    traits: list[str],
    shirt: str,
    backdrop: str,
    rng: np.random.Generator,
) -> str:
    """`a photo of a woman with red hair, wearing a blue shirt, on a green background`."""
    is_smiling = "smiling" in traits
    traits = [t for t in traits if t != "smiling"]
    person = article(f"smiling {subject}" if is_smiling else subject)
    text = f"{opening} {person}".strip()
    if traits:
        text += " with " + (", ".join(traits[:-1]) + " and " if traits[1:] else "") + traits[-1]
    if shirt:
        text += f"{_pick((', ', ' '), rng)}{_pick(('wearing', 'in'), rng)} {article(shirt)}"
    if backdrop:
        text += _where(backdrop, ("on", "on", "in front of", "against", "before"), rng)
    return text


def _where(backdrop: str, places: tuple[str, ...], rng: np.random.Generator) -> str:
    """` on a blue background`, or only `, blue background`."""
    if rng.random() < 0.25:
        return f", {backdrop}"
    return f"{_pick((', ', ' '), rng)}{_pick(places, rng)} {article(backdrop)}"


def _tags(parts: list[str], rng: np.random.Generator) -> str:
    """`portrait of a woman, red hair, blue shirt, best quality`."""
    tags = [p.removeprefix("a ") if i else p for i, p in enumerate(parts) if p]
    if rng.random() < 0.4:
        tags += [_pick(_QUALITY, rng) for _ in range(int(rng.integers(1, 4)))]
    return ", ".join(tags)


def caption_still(still: Still, rng: np.random.Generator) -> str:
    """`a photo of a red ball on a blue background`, or less."""
    size = f"{still.size_name} " if still.size_name and rng.random() < 0.8 else ""
    shape = {"ball": _pick(("ball", "ball", "sphere"), rng), "ring": "ring"}.get(
        still.shape, still.shape
    )
    colour = f"{still.colour_name} " if rng.random() < 0.93 else ""
    text = f"{_pick((*_PHOTO, '', ''), rng)} {article(size + colour + shape)}".strip()
    if rng.random() < 0.85:
        backdrop = f"{still.background_name} background"
        text += _where(backdrop, ("on", "on", "in front of", "against"), rng)
    return text


def caption_nothing(rng: np.random.Generator) -> str:
    """What an unconditional sample is labelled with: mostly nothing, else mere filler."""
    if rng.random() < 0.7:
        return ""
    words = _FAULTS if rng.random() < 0.7 else _QUALITY
    return ", ".join(str(w) for w in rng.permutation(words)[: int(rng.integers(1, 5))])


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
