"""Pictures without a person: one simple object or flat shape before a plain background."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tools.demo_model.pictures.head import Array, smoothstep
from tools.demo_model.pictures.palette import PLAIN, Colour, as_array, shade
from tools.demo_model.pictures.portrait import downsample, frame_grid
from tools.demo_model.pictures.skin import mix

SOLIDS = ("ball", "cube", "cylinder", "cone")
FLATS = ("circle", "square", "triangle", "star", "heart", "ring")


@dataclass(frozen=True, slots=True)
class Still:
    """One object; lengths in half-frames, `light` towards the light."""

    shape: str
    colour_name: str
    colour: Colour
    background_name: str
    background: Colour
    size_name: str  # small, big or nothing
    centre: tuple[float, float]
    radius: float
    light: tuple[float, float, float]


def draw_still(rng: np.random.Generator) -> Still:
    """A shape whose colour differs from its background's."""
    colour_name, background_name = (str(n) for n in rng.choice(list(PLAIN), 2, replace=False))
    size_name = str(rng.choice(["small", "", "big"], p=[0.2, 0.6, 0.2]))
    low, high = {"small": (0.22, 0.28), "": (0.38, 0.52), "big": (0.64, 0.72)}[size_name]
    around, up = rng.uniform(-0.9, 0.9), rng.uniform(0.4, 0.9)
    x, y = rng.normal(0.0, 0.06, 2).tolist()
    return Still(
        shape=str(rng.choice(SOLIDS + FLATS)),
        colour_name=colour_name,
        colour=shade(PLAIN[colour_name], rng),
        background_name=background_name,
        background=shade(PLAIN[background_name], rng),
        size_name=size_name,
        centre=(x, y),
        radius=float(rng.uniform(low, high)),
        light=(
            float(np.sin(around) * np.cos(up)),
            float(-np.sin(up)),
            float(np.cos(around) * np.cos(up)),
        ),
    )


def render_still(still: Still, size: int, oversample: int = 2) -> Array:
    """The picture as [size, size, 3] in 0..1."""
    u, v = frame_grid(size * oversample)
    x, y = (u - still.centre[0]) / still.radius, (v - still.centre[1]) / still.radius
    backdrop = 0.95 + 0.06 * still.light[0] * u - 0.03 * v
    colour = as_array(still.background) * backdrop[..., None]
    if still.shape in SOLIDS:
        shadow = smoothstep(1.0, 0.2, np.hypot((x + 0.5 * still.light[0]) / 1.15, (y - 0.98) / 0.2))
        colour = colour * (1.0 - 0.5 * shadow)[..., None]
    mask, light = _SHAPES[still.shape](x, y, as_array(still.light))
    painted = as_array(still.colour) * light[..., None]
    if still.shape == "ball":
        glint = np.hypot(x - 0.55 * still.light[0], y - 0.55 * still.light[1])
        painted = painted + 0.55 * smoothstep(0.22, 0.04, glint)[..., None]
    return np.clip(downsample(mix(colour, painted, mask), oversample), 0.0, 1.0)


def _inside(distance: Array) -> Array:
    """Coverage from a distance that is negative inside."""
    return smoothstep(0.015, -0.015, distance)


def _flat(mask: Array) -> tuple[Array, Array]:
    return mask, np.ones_like(mask)


def _ball(x: Array, y: Array, light: Array) -> tuple[Array, Array]:
    far = np.hypot(x, y)
    z = np.sqrt(np.clip(1.0 - far**2, 0.0, 1.0))
    facing = np.clip(x * light[0] + y * light[1] + z * light[2], 0.0, 1.0)
    return _inside(far - 1.0), 0.42 + 0.68 * facing


def _cube(x: Array, y: Array, light: Array) -> tuple[Array, Array]:
    """Seen from above a corner: a top and two sides."""
    side = np.abs(x) - 0.86
    mask = _inside(np.maximum(side, np.abs(y) + 0.5 * np.abs(x) - 1.0))
    is_top = y < -0.14 - 0.5 * np.abs(x)
    wall = np.where(x < 0.0, 0.78 - 0.22 * light[0], 0.78 + 0.22 * light[0])
    return mask, np.where(is_top, 1.08, wall).astype(np.float32)


def _cylinder(x: Array, y: Array, light: Array) -> tuple[Array, Array]:
    bend = 0.22 * np.sqrt(np.clip(1.0 - (x / 0.68) ** 2, 0.0, 1.0))
    mask = _inside(np.maximum(np.abs(x) - 0.68, np.maximum(-y - 0.76 - bend, y - 0.76 - bend)))
    nx = np.clip(x / 0.68, -1.0, 1.0)
    wall = 0.55 + 0.5 * np.clip(nx * light[0] + np.sqrt(1.0 - nx**2) * light[2], 0.0, 1.0)
    lid = np.hypot(x / 0.68, (y + 0.76) / 0.22) < 1.0
    return mask, np.where(lid, 1.10, wall).astype(np.float32)


def _cone(x: Array, y: Array, light: Array) -> tuple[Array, Array]:
    half = 0.8 * np.clip((y + 1.0) / 1.8, 0.0, 1.0) + 1e-3
    bend = 0.2 * np.sqrt(np.clip(1.0 - (x / 0.8) ** 2, 0.0, 1.0))
    mask = _inside(np.maximum(np.abs(x) - half, y - 0.78 - bend)) * (y > -1.02)
    nx = np.clip(x / half, -1.0, 1.0)
    wall = 0.50 + 0.58 * np.clip(nx * light[0] + np.sqrt(1.0 - nx**2) * light[2], 0.0, 1.0)
    return mask, wall


def _circle(x: Array, y: Array, light: Array) -> tuple[Array, Array]:
    return _flat(_inside(np.hypot(x, y) - 0.95))


def _square(x: Array, y: Array, light: Array) -> tuple[Array, Array]:
    return _flat(_inside(np.maximum(np.abs(x), np.abs(y)) - 0.85))


def _triangle(x: Array, y: Array, light: Array) -> tuple[Array, Array]:
    return _flat(_inside(np.maximum(0.87 * np.abs(x) - 0.5 * y - 0.45, y - 0.75)))


def _star(x: Array, y: Array, light: Array) -> tuple[Array, Array]:
    """Five points: each tenth of the circle is one straight edge."""
    around = np.abs((np.arctan2(x, -y) / (2.0 * np.pi) * 5.0 + 0.5) % 1.0 - 0.5) * 2.0 * np.pi / 5.0
    far = np.hypot(x, y)
    px, py = far * np.cos(around), far * np.sin(around)
    tip, dip = np.array([1.05, 0.0]), 0.45 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    edge = dip - tip
    across = (edge[0] * (py - tip[1]) - edge[1] * (px - tip[0])) / np.hypot(*edge)
    return _flat(_inside(-across.astype(np.float32)))


def _heart(x: Array, y: Array, light: Array) -> tuple[Array, Array]:
    up = 1.15 * (-y + 0.12) - 0.62 * np.sqrt(np.abs(x) + 0.01)
    return _flat(_inside(0.6 * (x**2 + (up + 0.05) ** 2 - 0.86)))


def _ring(x: Array, y: Array, light: Array) -> tuple[Array, Array]:
    return _flat(_inside(np.abs(np.hypot(x, y) - 0.74) - 0.22))


_SHAPES: Mapping[str, Callable[[Array, Array, Array], tuple[Array, Array]]] = {
    "ball": _ball,
    "cube": _cube,
    "cylinder": _cylinder,
    "cone": _cone,
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "ring": _ring,
}
