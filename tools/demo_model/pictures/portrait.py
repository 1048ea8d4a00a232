"""A whole portrait: background, shirt, hair behind, neck, ears, head, hair in front."""

import numpy as np

from tools.demo_model.pictures.head import Array, Surface, rotation, smoothstep, trace_head
from tools.demo_model.pictures.palette import as_array
from tools.demo_model.pictures.person import Identity, View
from tools.demo_model.pictures.skin import hair_on_head, mix, paint_eyes, paint_glasses, paint_skin

_EAR_Y = 0.10


def frame_grid(size: int) -> tuple[Array, Array]:
    """Pixel centres in half-frames: both axes run from -1 to 1."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2.0 - 1.0
    u, v = np.meshgrid(axis, axis)
    return u, v


def downsample(picture: Array, factor: int) -> Array:
    """Mean over factor x factor blocks, which is the antialiasing."""
    places = [(row, column) for row in range(factor) for column in range(factor)]
    total = sum(picture[row::factor, column::factor] for row, column in places)
    return np.asarray(total, np.float32) / factor**2


def shade_surface(normal: Array, view: View, gain: float = 0.62) -> Array:
    """Lambert's law with an ambient share."""
    return view.ambient + gain * np.clip(normal @ as_array(view.light), 0.0, 1.0)


def paint_background(u: Array, v: Array, view: View) -> Array:
    """One colour, softly lighter on the lit side and darker at the rim."""
    rng = np.random.default_rng(view.texture_seed)
    glow_u, glow_v = rng.uniform(-0.7, 0.7, 2).tolist()
    glow = np.exp(-((u - glow_u) ** 2) - (v - glow_v) ** 2)
    light = 0.92 + 0.08 * view.light[0] * u - 0.04 * v + rng.uniform(0.0, 0.10) * glow
    return as_array(view.background) * light[..., None]


def render_portrait(who: Identity, view: View, size: int, oversample: int = 2) -> Array:
    """The picture as [size, size, 3] in 0..1."""
    u, v = frame_grid(size * oversample)
    x = (u - view.centre[0]) / view.scale  # head units around the head's centre
    y = (v - view.centre[1]) / view.scale
    colour = paint_background(u, v, view)
    colour = _paint_shirt(colour, x, y, view)
    colour = _paint_hair_behind(colour, x, y, who, view)
    colour = _paint_neck(colour, x, y, who, view)
    colour = _paint_head(colour, x, y, who, view)
    return np.clip(downsample(colour, oversample), 0.0, 1.0)


def _body_x(x: Array, view: View) -> Array:
    """Shoulders follow the head's turn only a little."""
    return x + 0.12 * view.yaw


def _paint_shirt(colour: Array, x: Array, y: Array, view: View) -> Array:
    """Shoulders as the front of a flat ellipsoid."""
    x = _body_x(x, view)
    slope = np.clip((np.abs(x) - 0.35) / 1.43, 0.0, 1.0)
    top = 1.12 + 0.22 * slope + 0.75 * slope**5
    mask = smoothstep(-0.02, 0.02, y - top) * smoothstep(1.78, 1.74, np.abs(x))
    nx = np.clip(x / 1.9, -1.0, 1.0)
    ny = -0.75 * smoothstep(0.5, 0.0, y - top)
    normal = np.stack([nx, ny, np.sqrt(np.clip(1.0 - nx**2, 0.05, 1.0))], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    lit = shade_surface(normal, view, 0.55)
    return mix(colour, as_array(view.shirt) * lit[..., None], mask)


def _paint_neck(colour: Array, x: Array, y: Array, who: Identity, view: View) -> Array:
    """A cylinder that ends in a round neckline, in the shadow of the chin."""
    x = _body_x(x, view) - 0.10 * view.yaw
    half = 0.40 if who.kind in ("man",) else 0.34
    column = smoothstep(half + 0.015, half - 0.015, np.abs(x)) * (y > 0.2) * (y < 1.2)
    neckline = smoothstep(1.04, 0.96, np.hypot(x / (half + 0.07), (y - 1.12) / 0.19))
    mask = np.maximum(column, neckline)
    nx = np.clip(x / (half + 0.1), -0.95, 0.95)
    normal = np.stack([nx, 0.0 * nx, np.sqrt(1.0 - nx**2)], axis=-1)
    lit = shade_surface(normal, view) * (0.62 + 0.30 * smoothstep(0.85, 1.35, y))
    return mix(colour, as_array(who.skin) * lit[..., None], mask)


def _strands(x: Array, y: Array, who: Identity, view: View) -> Array:
    """Streaks that run down from the crown, 1 on average."""
    rng = np.random.default_rng(view.texture_seed + 1)
    around = np.arctan2(x, y + 1.6)
    phase = rng.uniform(0.0, 6.3, 3).tolist()
    wave = 0.25 * who.wave * np.sin(5.0 * y + phase[0])
    streaks = np.sin(38.0 * around + phase[1] + wave) + 0.6 * np.sin(71.0 * around + phase[2])
    return 1.0 + 0.09 * streaks


def _hair_colour(normal: Array, x: Array, y: Array, who: Identity, view: View) -> Array:
    """Shaded hair with a soft band of gloss."""
    lit = shade_surface(normal, view, 0.6) * _strands(x, y, who, view)
    gloss = 0.10 * np.clip(normal @ as_array(view.light), 0.0, 1.0) ** 12
    return as_array(who.hair) * lit[..., None] + gloss[..., None]


def _paint_hair_behind(colour: Array, x: Array, y: Array, who: Identity, view: View) -> Array:
    """The volume around the skull and, for longer hair, what falls beside the face."""
    if who.hair_length == "bald":
        return colour
    x = x + 0.18 * view.yaw + view.roll * y
    volume = who.hair_volume * (0.75 if who.hair_length == "short" else 1.1)
    wide, high = who.width * 1.04 + volume, 1.0 + 0.8 * volume
    cap = smoothstep(1.015, 0.985, np.hypot(x / wide, (y + 0.02) / high))
    cap *= smoothstep(0.16, 0.06, y) if who.hair_length == "short" else 1.0
    mask, rim = cap, wide
    if who.hair_length != "short":
        end = 0.98 if who.hair_length == "medium" else 1.75
        low = np.clip(y, 0.0, None)
        edge = wide + 0.10 * low - 0.10 * low**2 + 0.03 * who.wave * np.sin(7.0 * y)
        end_here = end - 0.25 * np.clip(np.abs(x) / wide - 0.45, 0.0, None) ** 2
        fall = smoothstep(0.015, -0.015, np.abs(x) - edge) * (y > 0.0)
        fall *= smoothstep(0.03, -0.03, y - end_here)
        opening = 0.30 + 0.22 * np.clip(y - 0.9, 0.0, None)
        fall *= 1.0 - smoothstep(0.03, -0.03, np.abs(x) - opening) * (y > 0.9)
        mask, rim = np.maximum(cap, fall), np.maximum(edge, wide)
    nx = np.clip(x / rim, -0.97, 0.97)
    ny = np.clip(np.minimum(y, 0.0) / high, -0.97, 0.0) * np.sqrt(1.0 - nx**2)
    normal = np.stack([nx, ny, np.sqrt(np.clip(1.0 - nx**2 - ny**2, 0.02, 1.0))], axis=-1)
    inner = 0.72 + 0.28 * smoothstep(0.75, 1.0, np.hypot(nx, np.minimum(y, 0.0) / high))
    painted = _hair_colour(normal, x, y, who, view) * inner[..., None]
    return mix(colour, painted, mask)


def _paint_ears(colour: Array, x: Array, y: Array, who: Identity, view: View) -> Array:
    """Flat discs at both sides of the head, before the head hides their inner half."""
    turn = rotation(view)
    for sign in (-1.0, 1.0):
        at = turn @ np.array([sign * who.width * 1.03, _EAR_Y, -0.02], np.float32)
        far = np.hypot((x - at[0]) / 0.10, (y - at[1]) / 0.19)
        lit = 0.80 + 0.12 * sign * view.light[0] - 0.25 * smoothstep(0.7, 0.2, far)
        colour = mix(colour, as_array(who.skin) * lit[..., None], smoothstep(1.05, 0.95, far))
    return colour


def _around_head(x: Array, y: Array) -> tuple[slice, slice]:
    """Rows and columns of the picture that the head can reach."""
    rows, columns = np.flatnonzero(np.abs(y[:, 0]) < 1.25), np.flatnonzero(np.abs(x[0]) < 1.15)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _paint_head(colour: Array, x: Array, y: Array, who: Identity, view: View) -> Array:
    """Skin, eyes, glasses and the hair that grows on the visible side."""
    if who.hair_length in ("short", "bald"):
        colour = _paint_ears(colour, x, y, who, view)
    window = _around_head(x, y)
    face: Surface = trace_head(x[window], y[window], who, view)
    lit = shade_surface(face.normal, view)
    half = as_array(view.light) + np.array([0.0, 0.0, 1.0], np.float32)
    gloss = 0.10 * np.clip(face.normal @ (half / np.linalg.norm(half)), 0.0, 1.0) ** 24
    head = paint_skin(face, who, view) * lit[..., None] + gloss[..., None]
    head = paint_eyes(head, face, who, view)
    hair = _hair_colour(face.normal, face.x, face.y, who, view)
    head = mix(head, hair, hair_on_head(face, who))
    if who.has_glasses:
        head = paint_glasses(head, face, who)
    colour[window] = mix(colour[window], head, face.mask)
    return colour
