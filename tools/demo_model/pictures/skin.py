"""What the surface of a head is painted with: skin, lips, brows, beard, eyes, glasses, hair."""

import numpy as np

from tools.demo_model.pictures.head import Array, Surface, bump, mouth_height, smoothstep
from tools.demo_model.pictures.palette import as_array
from tools.demo_model.pictures.person import Identity, View

_LIP = np.array([0.72, 0.20, 0.22], np.float32)
_WHITE_OF_EYE = np.array([0.95, 0.94, 0.93], np.float32)
_DARK = np.array([0.05, 0.03, 0.03], np.float32)
_RIM = np.array([0.22, 0.17, 0.15], np.float32)
_EYE_REACH = 1.2  # half-widths of an eye from its middle to where nothing of it is painted


def mix(below: Array, above: Array, weight: Array) -> Array:
    """Paint `above` over `below` with per-pixel weight; most features cover little of a picture."""
    window = touched(weight)
    part = below[window]
    painted = below.copy()
    over = np.broadcast_to(above, below.shape)[window]
    painted[window] = part + (over - part) * weight[window][..., None]
    return painted


def touched(weight: Array) -> tuple[slice, slice]:
    """The rows and columns in which anything is painted; may be empty."""
    rows, columns = np.flatnonzero(weight.any(axis=1)), np.flatnonzero(weight.any(axis=0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def paint_skin(face: Surface, who: Identity, view: View) -> Array:
    """Albedo of skin, cheeks, nostrils, lips, beard and brows."""
    skin, hair = as_array(who.skin), as_array(who.hair)
    x, y, side = face.x, face.y, np.abs(face.x)
    albedo = np.broadcast_to(skin, (*x.shape, 3)).copy()
    rosy = np.clip(skin * np.array([1.05, 0.80, 0.80], np.float32), 0.0, 1.0)
    albedo = mix(albedo, rosy, 0.6 * bump(side - 0.40, y - 0.36, 0.16, 0.13))
    tip = who.eye_line + who.nose_length
    nostril = bump(side - 0.6 * who.nose_width, y - tip - 0.045, 0.032, 0.018)
    albedo = mix(albedo, skin * 0.25, np.clip(0.9 * nostril, 0.0, 1.0))
    lips = y - mouth_height(x, who, view.smile)
    width = who.mouth_width * (1.0 + 0.15 * view.smile)
    if who.has_beard:
        albedo = mix(albedo, hair * 0.5 + skin * 0.30, _beard(x, y, lips, who))
    arch = np.sqrt(np.clip(1.0 - (x / width) ** 2, 0.0, 1.0))
    dip = 1.0 - 0.3 * bump(x, 0.0 * x, 0.04, 1.0)
    height = who.lip_height * arch * np.where(lips < 0.0, 0.8 * dip, 1.1)
    inside = smoothstep(0.012, -0.012, np.abs(lips) - height) * (arch > 0.0)
    lip = skin + (_LIP * (0.55 + 0.45 * skin[0]) - skin) * who.lip_redness
    albedo = mix(albedo, lip * 0.92, inside)
    line = smoothstep(0.016, 0.006, np.abs(lips)) * smoothstep(1.08, 0.98, side / width)
    albedo = mix(albedo, lip * 0.3, 0.85 * line)
    return mix(albedo, hair * 0.40, _brows(side, y, who))


def _brows(side: Array, y: Array, who: Identity) -> Array:
    """Two arched strokes, thinner towards the temples."""
    along = (side - who.eye_spread) / 0.19
    height = who.eye_line - who.brow_height + 0.05 * along**2 - who.brow_tilt * 0.1 * along
    thickness = who.brow_weight * (1.1 - 0.35 * along)
    stroke = smoothstep(0.012, -0.012, np.abs(y - height) - thickness)
    return 0.9 * stroke * smoothstep(1.05, 0.85, np.abs(along))


def _beard(x: Array, y: Array, lips: Array, who: Identity) -> Array:
    """Jaw, chin and moustache, with the mouth left free."""
    edge = 0.34 + 0.25 * np.exp(-((x / 0.30) ** 2))
    jaw = smoothstep(edge - 0.07, edge + 0.09, y)
    free = 1.0 - bump(x, lips, who.mouth_width * 0.95, 0.075) ** 0.5
    moustache = bump(x, lips + 0.095, who.mouth_width, 0.05)
    return np.clip(np.maximum(jaw * np.clip(free * 1.6, 0.0, 1.0), moustache), 0.0, 0.92)


def paint_eyes(colour: Array, face: Surface, who: Identity, view: View) -> Array:
    """Whites, iris, pupil, highlight and lids, over the already shaded skin."""
    painted = colour.copy()
    for sign in (-1.0, 1.0):
        x = (face.x - sign * who.eye_spread) / who.eye_size
        y = (face.y - who.eye_line) / who.eye_size
        window = touched((np.abs(x) < _EYE_REACH) & (np.abs(y) < _EYE_REACH))
        painted[window] = _paint_eye(
            painted[window], x[window], y[window], face.z[window], who, view
        )
    return painted


def _paint_eye(colour: Array, x: Array, y: Array, z: Array, who: Identity, view: View) -> Array:
    """One eye; x and y count from its middle in half-widths of the eye."""
    arch = np.clip(1.0 - x**2, 0.0, 1.0)
    upper, lower = -0.52 * arch, (0.40 - 0.06 * view.smile) * arch
    inside = smoothstep(-0.04, 0.06, y - upper) * smoothstep(0.04, -0.06, y - lower)
    inside *= (np.abs(x) < 1.0) * smoothstep(0.05, 0.2, z)
    gaze_x, gaze_y = view.gaze[0] / who.eye_size, view.gaze[1] / who.eye_size
    far = np.hypot(x - gaze_x, y - gaze_y + 0.03)
    shadow = 1.0 - 0.35 * smoothstep(0.30, 0.0, y - upper)
    white = _WHITE_OF_EYE * (0.72 + 0.28 * who.skin[0])
    eye = white * ((view.ambient + 0.45) * shadow)[..., None]
    iris = as_array(who.eyes) * (0.75 + 0.6 * smoothstep(0.1, 0.4, far))[..., None]
    eye = mix(eye, iris, smoothstep(0.47, 0.39, far))
    eye = mix(eye, _DARK, smoothstep(0.21, 0.15, far))
    glint = np.hypot(x - gaze_x + 0.14, y - gaze_y + 0.18)
    eye = mix(eye, np.ones(3, np.float32), smoothstep(0.15, 0.07, glint))
    colour = mix(colour, eye, inside)
    lash = smoothstep(0.12, 0.04, np.abs(y - upper + 0.04)) * smoothstep(1.12, 1.0, np.abs(x))
    crease = 0.35 * smoothstep(0.09, 0.02, np.abs(y + 0.28 + 0.45 * arch))
    crease *= smoothstep(1.1, 0.8, np.abs(x))
    under = 0.25 * smoothstep(0.08, 0.02, np.abs(y - lower)) * (np.abs(x) < 1.0)
    line = np.clip(np.maximum(np.maximum(0.9 * lash, crease), under), 0.0, 1.0)
    return mix(colour, _DARK, line * smoothstep(0.05, 0.2, z))


def paint_glasses(colour: Array, face: Surface, who: Identity) -> Array:
    """Round, thin rims with a bridge and arms; heavy ones would hide the eyes in small pictures."""
    side = np.abs(face.x)
    ring = np.hypot((side - who.eye_spread) / 1.08, face.y - who.eye_line - 0.02)
    rim = smoothstep(0.018, 0.006, np.abs(ring - 0.235))
    level = smoothstep(0.018, 0.006, np.abs(face.y - who.eye_line + 0.01))
    bridge = level * (side < who.eye_spread - 0.21)
    arms = level * (side > who.eye_spread + 0.24)
    frame = np.maximum(rim, np.maximum(bridge, arms)) * smoothstep(-0.1, 0.1, face.z)
    return mix(colour, _RIM, 0.8 * frame)


def hair_on_head(face: Surface, who: Identity) -> Array:
    """Weight of hair on the head's surface: above the hairline and behind the temples."""
    if who.hair_length == "bald":
        return np.zeros_like(face.x)
    from_part = np.abs(face.x - who.part * who.width)
    line = -0.60 + 0.55 * (from_part / 0.8) ** 2
    if who.has_fringe:
        line = np.maximum(line, -0.42 + 0.10 * (face.x / 0.7) ** 2 + 0.02 * np.sin(26.0 * face.x))
    top = smoothstep(0.03, -0.03, face.y - line)
    sideburn = {"short": 0.12, "medium": 0.9, "long": 0.9}[who.hair_length]
    behind = smoothstep(0.34, 0.26, face.z + 0.10 * face.y) * smoothstep(
        sideburn + 0.05, sideburn - 0.05, face.y
    )
    return np.maximum(top, behind)
