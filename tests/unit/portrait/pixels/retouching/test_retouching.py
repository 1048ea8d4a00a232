"""Skin, make-up, colour, enhancement, sharpness: what each changes, and what it leaves alone."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from sdapi.portrait.creation.face_tasks import enlarge
from sdapi.portrait.faces.face import Face, FaceError, Pixels
from sdapi.portrait.faces.providers import Providers
from sdapi.portrait.pixels.masks.shape import Shape
from sdapi.portrait.pixels.masks.skin import skin_mask
from sdapi.portrait.pixels.raster import resized, to_lab
from sdapi.portrait.pixels.retouching.colour_shift import colour_shifted
from sdapi.portrait.pixels.retouching.enhance import enlarged, fixed, half_and_half, noise_of
from sdapi.portrait.pixels.retouching.makeup import made_up
from sdapi.portrait.pixels.retouching.retouch import retouched
from sdapi.portrait.pixels.retouching.sharpen import sharpened

Photo = SimpleNamespace


def detail(rgb: Pixels, mask: np.ndarray | None = None) -> float:
    """Laplacian variance, of the whole or of a place."""
    edges = cv2.Laplacian(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.CV_64F)
    return float(edges.var() if mask is None else edges[mask > 0.5].var())


def grainy(rgb: Pixels, by: float = 6.0) -> Pixels:
    noise = np.random.default_rng(1).normal(0, by, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


def skin_mean(photo: Photo, rgb: Pixels) -> np.ndarray:
    return to_lab(rgb)[skin_mask(photo.rgb, photo.face) > 0.5].mean(axis=0)


def test_skin_is_found_on_the_face_and_not_on_eyes_lips_or_background(person: Photo):
    mask = skin_mask(person.rgb, person.face)
    shape = Shape.of(person.face, person.rgb.shape)
    assert mask[shape.core() > 0].mean() > 0.4
    assert not mask[shape.eyes() > 0].any()
    assert not mask[shape.lips() > 0].any()
    assert not mask[shape.ellipse(shape.points[30], (3 * shape.fw,) * 2, 0.0) == 0].any()


def test_retouching_smooths_skin_and_leaves_every_other_pixel(person: Photo):
    rough = grainy(person.rgb)
    mask = skin_mask(rough, person.face)
    smooth = retouched(rough, person.face)
    assert detail(smooth, mask) < 0.7 * detail(rough, mask)
    assert (smooth[mask == 0] == rough[mask == 0]).all()
    assert to_lab(smooth)[mask > 0.5][:, 0].mean() > to_lab(rough)[mask > 0.5][:, 0].mean()


def test_colour_shift_brings_the_skin_to_the_templates_tone(person: Photo, stranger: Photo):
    masks = [skin_mask(each.rgb, each.face) for each in (person, stranger)]
    keep = np.zeros(masks[0].shape, np.float32)
    fw = Shape.of(person.face, person.rgb.shape).fw
    shifted = colour_shifted(person.rgb, stranger.rgb, *masks, keep, fw)
    wanted = skin_mean(stranger, stranger.rgb)
    before, after = (
        np.linalg.norm(skin_mean(person, rgb) - wanted) for rgb in (person.rgb, shifted)
    )
    assert after < 0.3 * before
    kept = colour_shifted(person.rgb, stranger.rgb, *masks, np.ones_like(keep), fw)
    assert (kept == person.rgb).all()
    nothing = np.zeros_like(masks[0])
    assert (
        colour_shifted(person.rgb, stranger.rgb, nothing, masks[1], keep, fw) == person.rgb
    ).all()


def lips_mean(photo: Photo, rgb: Pixels) -> np.ndarray:
    shape = Shape.of(photo.face, rgb.shape)
    lips = (shape.lips() > 0) & (shape.inner_mouth() == 0)
    return to_lab(rgb)[lips].mean(axis=0)


def painted(photo: Photo) -> Pixels:
    """The photo with red lips."""
    shape = Shape.of(photo.face, photo.rgb.shape)
    rgb = photo.rgb.copy()
    rgb[shape.lips() > 0] = (190, 20, 40)
    return rgb


def test_make_up_moves_lips_towards_the_templates_and_nothing_at_ratio_zero(
    person: Photo, stranger: Photo
):
    model = painted(stranger)
    wanted = lips_mean(stranger, model)
    apart = [
        float(
            np.linalg.norm(
                lips_mean(person, made_up(person.rgb, person.face, model, stranger.face, ratio))[1:]
                - wanted[1:]
            )
        )
        for ratio in (0.0, 0.5, 1.0)
    ]
    assert apart[0] > apart[1] > apart[2]
    same = made_up(person.rgb, person.face, model, stranger.face, 0.0)
    assert (same == person.rgb).all()
    full = made_up(person.rgb, person.face, model, stranger.face, 1.0)
    shape = Shape.of(person.face, person.rgb.shape)
    chin = shape.ellipse((shape.points[8] + shape.points[57]) / 2, (4, 4), 0.0) > 0
    assert (full[chin] == person.rgb[chin]).all()


def test_make_up_needs_skin_on_both_faces(person: Photo, stranger: Photo):
    """Without it the difference of the skins would be a whole skin's tone."""
    dotted = stranger.rgb.copy()
    dotted[::3] = 20
    dotted[:, ::3] = 20
    assert not skin_mask(dotted, stranger.face).any()
    with pytest.raises(FaceError, match="no skin"):
        made_up(person.rgb, person.face, dotted, stranger.face, 1.0)
    with pytest.raises(FaceError, match="no skin"):
        made_up(dotted, stranger.face, person.rgb, person.face, 1.0)


def test_a_shifted_tone_fades_about_the_skins_edge(person: Photo):
    grey, brown = (np.full((200, 200, 3), tone, np.uint8) for tone in ((120,) * 3, (150, 120, 100)))
    skin = np.zeros((200, 200), np.float32)
    skin[:, :100] = 1.0
    shifted = colour_shifted(grey, brown, skin, skin, np.zeros_like(skin), 100.0)
    share = (shifted[100, :, 0].astype(float) - 120) / 30
    assert share[50] > 0.95
    assert share[98] > 0.5 > share[101]
    assert share[130] < 0.05


def test_skin_is_looked_for_down_to_the_neck(person: Photo):
    plain = np.full_like(person.rgb, (205, 160, 140))
    shape = Shape.of(person.face, plain.shape)
    rows = np.nonzero(skin_mask(plain, person.face).any(axis=1))[0]
    assert np.ptp(rows) == pytest.approx(2 * 1.3 * shape.height, rel=0.08)


def test_half_of_an_enlarged_pictures_sharpness_shows(built_in: Providers, person: Photo):
    plain = resized(person.rgb, (640, 640))
    half, full = enlarge(built_in, person.rgb), enlarged(person.rgb)
    assert half.shape == full.shape
    assert detail(plain) < detail(half) < 0.9 * detail(full)


def test_photo_fix_takes_noise_away_and_keeps_the_size(person: Photo):
    noisy = grainy(person.rgb, 12.0)
    better = half_and_half(noisy, fixed(noisy, person.face))
    assert better.shape == noisy.shape
    left, top, right, bottom = (int(side) for side in person.face.box)
    assert noise_of(fixed(noisy, person.face)[top:bottom, left:right]) < noise_of(
        noisy[top:bottom, left:right]
    )
    assert (fixed(noisy, person.face)[:8, :8] == noisy[:8, :8]).all()


def test_enlarging_doubles_up_to_a_limit(person: Photo):
    assert enlarged(person.rgb).shape == (640, 640, 3)
    wide = np.zeros((300, 3000, 3), np.uint8)
    assert enlarged(wide).shape[1] == 4096
    huge = np.zeros((20, 5000, 3), np.uint8)
    assert enlarged(huge).shape == huge.shape


def test_sharpness_rises_with_its_ratio(person: Photo):
    soft = cv2.GaussianBlur(person.rgb, (0, 0), 1.0)
    found = [detail(sharpened(soft, ratio)) for ratio in (0.0, 0.15, 0.5, 1.0)]
    assert found == sorted(found)
    assert found[0] < found[1]
    assert sharpened(soft, 0.0) is soft


@pytest.mark.parametrize(
    "points", [None, np.full((68, 2), np.nan, np.float32), np.zeros((68, 2), np.float32)]
)
def test_a_face_without_landmarks_of_a_face_is_an_error(person: Photo, points: np.ndarray | None):
    face = Face(person.face.box, 1.0, person.face.eyes, points)
    with pytest.raises(FaceError):
        retouched(person.rgb, face)
