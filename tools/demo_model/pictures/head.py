"""The shape of a head: an ellipsoid with nose, sockets, lips and chin added, seen from any side.

Head coordinates: x to the picture's right, y down, z towards the viewer when the pose is frontal;
the unit is half the height of the head, so eyes lie near y = 0 and the chin at y = 1.
"""

from dataclasses import dataclass
from math import cos, sin

import numpy as np
from numpy.typing import NDArray

from tools.demo_model.pictures.person import Identity, View

Array = NDArray[np.float32]
DEPTH = 0.86  # half-length of the head from front to back


@dataclass(frozen=True, slots=True)
class Surface:
    """What is visible of the head, per pixel; outside `mask` the values mean nothing."""

    mask: Array  # [H, W] 0..1
    x: Array  # [H, W] head coordinates of the visible point
    y: Array
    z: Array
    normal: Array  # [H, W, 3] in view coordinates


def smoothstep(low: float, high: float, value: Array) -> Array:
    """0 below `low`, 1 above `high`, a smooth slope between; falling when low > high."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def bump(x: Array, y: Array, size_x: float, size_y: float) -> Array:
    """A Gaussian hill around the origin."""
    return np.exp(-((x / size_x) ** 2) - (y / size_y) ** 2)


def rotation(view: View) -> Array:
    """Head to view coordinates."""
    cy, sy = cos(view.yaw), sin(view.yaw)
    cp, sp = cos(view.pitch), sin(view.pitch)
    cr, sr = cos(view.roll), sin(view.roll)
    turn = np.array([[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]])
    nod = np.array([[1.0, 0.0, 0.0], [0.0, cp, -sp], [0.0, sp, cp]])
    tilt = np.array([[cr, -sr, 0.0], [sr, cr, 0.0], [0.0, 0.0, 1.0]])
    return (tilt @ nod @ turn).astype(np.float32)


def mouth_height(x: Array, who: Identity, smile: float) -> Array:
    """The y of the line between the lips; a smile lifts its corners."""
    return who.mouth_line - smile * 0.06 * (x / who.mouth_width) ** 2 + smile * 0.015


def relief(x: Array, y: Array, who: Identity, smile: float) -> Array:
    """How far the surface stands out of the ellipsoid, as a share of the radius."""
    side = np.abs(x)
    tip = who.eye_line + who.nose_length
    along = np.clip((y - who.eye_line + 0.05) / (who.nose_length + 0.05), 0.0, 1.0)
    ridge = np.exp(-((x / (0.055 + 0.05 * along)) ** 2)) * along**1.2
    total = who.nose_depth * ridge * smoothstep(tip + 0.07, tip, y)
    total += 0.045 * bump(side - who.nose_width, y - tip + 0.01, 0.05, 0.05)
    total -= 0.065 * bump(side - who.eye_spread, y - who.eye_line, 0.17, 0.10)
    total += 0.030 * bump(side - who.eye_spread, y - who.eye_line + who.brow_height, 0.2, 0.07)
    total += (0.025 + 0.02 * smile) * bump(side - 0.42, y - 0.33, 0.16, 0.14)
    lips = y - mouth_height(x, who, smile)
    width = who.mouth_width * (1.0 + 0.12 * smile)
    total += 0.040 * bump(x, lips, width, 0.09) - 0.022 * bump(x, lips, width, 0.018)
    total -= 0.020 * bump(x, y - who.mouth_line - 0.14, 0.18, 0.05)
    total += who.chin * bump(x, y - 0.88, 0.22, 0.12)
    return total


def narrowing(y: Array, who: Identity) -> Array:
    """Half-width of the head at height y: full at the temples, less at the jaw."""
    low = np.clip(y - 0.1, 0.0, 1.0)
    return who.width * (1.0 + 0.24 * low * (1.0 - 0.6 * low) - who.jaw * low**1.5)


def trace_head(u: Array, v: Array, who: Identity, view: View) -> Surface:
    """The head's visible surface; (u, v) are view coordinates around its centre in head units.

    The ellipsoid is met analytically; relief and jaw depend on the point that is met, so they are
    taken from the previous round. Three rounds settle it for the poses that are drawn.
    """
    to_view = rotation(view)
    across, down, ahead = to_view[0], to_view[1], to_view[2]
    ox, oy, oz = (u * across[i] + v * down[i] for i in range(3))
    radius, half_width = np.ones_like(u), np.full_like(u, who.width)
    for _ in range(3):
        a = (ahead[0] / half_width) ** 2 + ahead[1] ** 2 + (ahead[2] / DEPTH) ** 2
        b = ox * ahead[0] / half_width**2 + oy * ahead[1] + oz * ahead[2] / DEPTH**2
        c = (ox / half_width) ** 2 + oy**2 + (oz / DEPTH) ** 2 - radius**2
        inside = b * b - a * c
        t = (-b + np.sqrt(np.maximum(inside, 0.0))) / a
        x, y, z = ox + t * ahead[0], oy + t * ahead[1], oz + t * ahead[2]
        front = smoothstep(-0.1, 0.25, z)
        radius = 1.0 + relief(x, y, who, view.smile) * front
        half_width = narrowing(y, who)
    step = float(u[0, 1] - u[0, 0])
    slope_v, slope_u = np.gradient(t, step)
    normal = np.stack([-slope_u, -slope_v, np.ones_like(t)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    mask = smoothstep(-0.004, 0.012, inside / a)
    return Surface(mask, x, y, z, normal)


def surface_point(x: float, y: float, who: Identity, view: View) -> tuple[float, float]:
    """Where the surface point at head coordinates (x, y) lies in the view, in head units."""
    at = np.array([x], np.float32), np.array([y], np.float32)
    radius = 1.0 + relief(*at, who, view.smile)
    left = radius**2 - (at[0] / narrowing(at[1], who)) ** 2 - at[1] ** 2
    z = DEPTH * np.sqrt(np.maximum(left, 0.0))
    seen = rotation(view) @ np.array([x, y, z[0]], np.float32)
    return float(seen[0]), float(seen[1])
