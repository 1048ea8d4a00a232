"""Who is drawn (Identity) and how (View); both are drawn from seeds, apart from each other."""

from dataclasses import dataclass

import numpy as np

from tools.demo_model.pictures.palette import EYES, HAIR, PLAIN, SKIN, Colour, shade

FRAMINGS = ("close-up", "portrait", "upper body")
_FRAMING_SCALE = {"close-up": (0.70, 0.75), "portrait": (0.60, 0.67), "upper body": (0.50, 0.56)}


@dataclass(frozen=True, slots=True)
class Identity:
    """What stays the same from picture to picture; lengths are in half-heights of the head."""

    kind: str  # woman, man, girl or boy
    skin_name: str
    skin: Colour
    hair_name: str
    hair: Colour
    hair_length: str  # short, medium, long or bald
    eyes_name: str
    eyes: Colour
    has_beard: bool
    has_glasses: bool
    has_fringe: bool
    width: float
    jaw: float  # how much the face narrows towards the chin
    eye_spread: float
    eye_size: float
    eye_line: float
    brow_height: float
    brow_weight: float
    brow_tilt: float
    nose_length: float
    nose_width: float
    nose_depth: float
    mouth_line: float
    mouth_width: float
    lip_height: float
    lip_redness: float
    chin: float
    part: float  # where the hair is parted
    hair_volume: float
    wave: float


@dataclass(frozen=True, slots=True)
class View:
    """What changes from picture to picture; angles in radians, lengths in half-frames."""

    framing: str
    yaw: float
    pitch: float
    roll: float
    centre: tuple[float, float]
    scale: float  # half-height of the head
    light: tuple[float, float, float]  # unit vector towards the light; y points down
    ambient: float
    gaze: tuple[float, float]
    smile: float  # 0 serious to 1 smiling
    shirt_name: str
    shirt: Colour
    background_name: str
    background: Colour
    texture_seed: int


def draw_identity(rng: np.random.Generator) -> Identity:
    """A person with plausible proportions for their sex and age."""
    kind = str(rng.choice(["woman", "man", "girl", "boy"], p=[0.38, 0.38, 0.12, 0.12]))
    is_female, is_child = kind in ("woman", "girl"), kind in ("girl", "boy")
    skin_name, hair_name = str(rng.choice(list(SKIN))), str(rng.choice(list(HAIR)))
    eyes_name = str(rng.choice(list(EYES)))
    lengths = ["short", "medium", "long", "bald"]
    odds = [0.2, 0.3, 0.5, 0.0] if is_female else [0.74, 0.12, 0.06, 0.0 if is_child else 0.08]
    odds[0] += 1.0 - sum(odds)
    u = rng.uniform
    return Identity(
        kind=kind,
        skin_name=skin_name,
        skin=shade(SKIN[skin_name], rng),
        hair_name=hair_name,
        hair=shade(HAIR[hair_name], rng),
        hair_length=str(rng.choice(lengths, p=odds)),
        eyes_name=eyes_name,
        eyes=shade(EYES[eyes_name], rng),
        has_beard=kind == "man" and bool(rng.random() < 0.3),
        has_glasses=bool(rng.random() < 0.15),
        has_fringe=bool(rng.random() < (0.35 if is_female or is_child else 0.12)),
        width=u(0.71, 0.77) + 0.03 * is_child,
        jaw=u(0.12, 0.24) if is_female or is_child else u(0.04, 0.16),
        eye_spread=u(0.285, 0.33),
        eye_size=u(0.135, 0.155) + (0.018 if is_child else 0.008 * is_female),
        eye_line=u(0.02, 0.08) + 0.03 * is_child,
        brow_height=u(0.16, 0.20) + 0.015 * is_female,
        brow_weight=u(0.018, 0.026) if is_female or is_child else u(0.028, 0.040),
        brow_tilt=u(-0.08, 0.12),
        nose_length=u(0.30, 0.36) - 0.06 * is_child,
        nose_width=u(0.085, 0.105) if is_female or is_child else u(0.10, 0.13),
        nose_depth=u(0.12, 0.17) - 0.03 * is_child,
        mouth_line=u(0.56, 0.61) + 0.03 * is_child,
        mouth_width=u(0.20, 0.25) - 0.03 * is_child,
        lip_height=u(0.055, 0.075) if is_female else u(0.040, 0.055),
        lip_redness=u(0.55, 0.9) if is_female and not is_child else u(0.2, 0.45),
        chin=u(0.02, 0.07),
        part=u(-0.3, 0.3),
        hair_volume=u(0.06, 0.16),
        wave=u(0.0, 1.0),
    )


def draw_view(rng: np.random.Generator) -> View:
    """Pose, light, framing, clothes and background of one picture."""
    framing = str(rng.choice(FRAMINGS, p=[0.25, 0.55, 0.20]))
    scale = float(rng.uniform(*_FRAMING_SCALE[framing]))
    shirt_name, background_name = rng.choice(list(PLAIN)), rng.choice(list(PLAIN))
    around, up = rng.uniform(-0.6, 0.6), rng.uniform(0.1, 0.5)
    lift = 0.12 if framing == "upper body" else 0.0
    light = (np.sin(around) * np.cos(up), -np.sin(up), np.cos(around) * np.cos(up))
    return View(
        framing=framing,
        yaw=float(np.clip(rng.normal(0.0, 0.15), -0.3, 0.3)),
        pitch=float(np.clip(rng.normal(0.03, 0.06), -0.08, 0.15)),
        roll=float(np.clip(rng.normal(0.0, 0.05), -0.12, 0.12)),
        centre=(float(rng.normal(0.0, 0.04)), float(rng.uniform(-0.10, -0.03)) - lift),
        scale=scale,
        light=(float(light[0]), float(light[1]), float(light[2])),
        ambient=float(rng.uniform(0.49, 0.56)),
        gaze=(float(rng.normal(0.0, 0.018)), float(rng.normal(0.0, 0.006))),
        smile=float(rng.choice([0.0, 0.1, 0.8, 1.0])),
        shirt_name=str(shirt_name),
        shirt=shade(PLAIN[str(shirt_name)], rng),
        background_name=str(background_name),
        background=shade(PLAIN[str(background_name)], rng),
        texture_seed=int(rng.integers(2**31)),
    )
