"""A person's features in another's picture: how near they come, and what stays."""

from types import SimpleNamespace

import numpy as np
import pytest

from sdapi.portrait.creation.face_tasks import mirrored
from sdapi.portrait.faces.face import Face, FaceError, Pixels, distance
from sdapi.portrait.faces.pose import pose_of
from sdapi.portrait.faces.providers import Providers
from sdapi.portrait.pixels.fusion import fused, fusion_weight
from sdapi.portrait.pixels.guides.pose_map import pose_map
from sdapi.portrait.pixels.guides.replaced import replaced_points
from sdapi.portrait.pixels.masks.regions import Regions
from sdapi.portrait.pixels.masks.shape import Shape
from sdapi.portrait.pixels.raster import grown, shrunk
from sdapi.portrait.pixels.warp import WarpSwapper

Photo = SimpleNamespace


def seen(providers: Providers, rgb: Pixels) -> np.ndarray:
    face = providers.landmarks.locate(rgb, providers.detector.detect(rgb)[0])
    return providers.embedder.embed(rgb, face)


def test_likeness_rises_with_the_ratio_and_zero_changes_nothing(
    built_in: Providers, person: Photo, stranger: Photo
):
    swapped = WarpSwapper().swap(stranger.rgb, stranger.face, person.rgb, person.face)
    wanted = built_in.embedder.embed(person.rgb, person.face)
    apart: list[float] = []
    for ratio in (0.0, 0.5, 1.0):
        picture = fused(stranger.rgb, stranger.face, swapped, ratio)
        apart.append(distance(wanted, seen(built_in, picture), "l2"))
    assert apart[0] > apart[1] > apart[2]
    assert apart[2] < 0.85 * apart[0]
    assert fused(stranger.rgb, stranger.face, swapped, 0.0) is stranger.rgb


def test_the_mouth_and_everything_outside_the_face_stay(person: Photo, stranger: Photo):
    swapped = WarpSwapper().swap(stranger.rgb, stranger.face, person.rgb, person.face)
    picture = fused(stranger.rgb, stranger.face, swapped, 1.0)
    shape = Shape.of(stranger.face, stranger.rgb.shape)
    for place in (shape.lips() > 0, shape.face() == 0):
        kept = (picture == stranger.rgb).all(axis=2) | ~place
        assert kept.mean() > 0.999
    assert fusion_weight(shape, 1.0).max() <= 1.0


def test_a_nose_that_is_spared_stays_and_the_rest_is_as_without(person: Photo, stranger: Photo):
    swapped = WarpSwapper().swap(stranger.rgb, stranger.face, person.rgb, person.face)
    whole, spared = (
        fused(stranger.rgb, stranger.face, swapped, 1.0, spares_nose=spares)
        for spares in (False, True)
    )
    shape = Shape.of(stranger.face, stranger.rgb.shape)
    middle = shrunk(shape.nose(), 0.06 * shape.fw) > 0
    assert middle.any()
    assert (spared[middle] == stranger.rgb[middle]).all()
    assert (whole[middle] != stranger.rgb[middle]).any()
    far = grown(shape.nose(), 0.08 * shape.fw) == 0
    assert (spared[far] == whole[far]).all()


def test_the_skins_edge_is_kept_out_of_a_fusion(stranger: Photo):
    shape = Shape.of(stranger.face, stranger.rgb.shape)
    weight = fusion_weight(shape, 1.0)
    skin = (shape.eyes(0.15 * shape.fw) == 0) & (shape.lips(0.15 * shape.fw) == 0)
    half = skin & (weight > 0.5)
    assert half.any()
    assert not half[shrunk(shape.core(), 0.13 * shape.fw) == 0].any()


def test_a_swapped_face_has_the_pictures_light(person: Photo, stranger: Photo):
    dark = (stranger.rgb * 0.5).astype(np.uint8)
    swapped = WarpSwapper().swap(dark, stranger.face, person.rgb, person.face)
    core = Shape.of(stranger.face, dark.shape).core() > 0
    assert abs(float(swapped[core].mean()) - float(dark[core].mean())) < 12


def test_a_large_source_is_the_same_as_a_small_one(person: Photo, stranger: Photo):
    import cv2

    from sdapi.portrait.pixels.frame import moved

    large = cv2.resize(person.rgb, (1280, 1280), interpolation=cv2.INTER_CUBIC)
    face = moved(person.face, np.array([[4.0, 0, 0], [0, 4.0, 0]]))
    pictures = [
        WarpSwapper().swap(stranger.rgb, stranger.face, *source)
        for source in ((person.rgb, person.face), (np.ascontiguousarray(large, np.uint8), face))
    ]
    core = Shape.of(stranger.face, stranger.rgb.shape).core() > 0
    apart = np.abs(pictures[0].astype(int) - pictures[1])[core]
    assert apart.mean() < 4


def test_a_mirror_turns_the_head_the_other_way_and_keeps_the_points_order(person: Photo):
    rgb, face = mirrored(person.rgb, person.face)
    assert face.points68 is not None
    assert person.face.points68 is not None
    assert pose_of(face.points68).yaw == pytest.approx(-pose_of(person.face.points68).yaw, abs=1.0)
    assert face.points68[36, 0] < face.points68[45, 0]
    assert face.eyes[0, 0] < face.eyes[1, 0]
    again = mirrored(rgb, face)
    assert (again[0] == person.rgb).all()
    assert np.allclose(again[1].points68, person.face.points68, atol=0.01)


def test_a_shape_is_laid_where_the_template_has_its_face(person: Photo, stranger: Photo):
    points = replaced_points(stranger.face, person.face)
    assert stranger.face.points68 is not None
    apart = np.linalg.norm(points[36:48] - stranger.face.points68[36:48], axis=1)
    assert apart.mean() < 0.1 * stranger.face.width
    picture = pose_map(points, (320, 320), 0.625)
    assert picture.shape == (320, 320, 3)
    x, y = np.rint(points[30]).astype(int)
    assert picture[y, x].min() > 128
    assert 0.001 < (picture > 128).mean() < 0.1


def test_the_edge_is_a_ring_with_eyes_and_lips(person: Photo):
    regions = Regions.of(person.rgb, person.face, None)
    edge, whole = regions.edge(0.625), regions.redrawn()
    shape = Shape.of(person.face, person.rgb.shape)
    assert edge[shape.eyes() > 0].all()
    assert edge[shape.lips() > 0].all()
    cheek = np.rint((shape.points[2] + shape.points[31]) / 2).astype(int)
    assert edge[cheek[1], cheek[0]] == 0
    assert whole[cheek[1], cheek[0]] == 1
    assert edge.sum() < whole.sum()


class Parts:
    """A parser that says the face is the picture's left half, and its ears a spot."""

    def parse(self, rgb: Pixels, face: Face) -> dict[str, np.ndarray]:
        names = ("skin", "brows", "eyes", "nose", "mouth", "lips", "ears")
        parts = {name: np.zeros(rgb.shape[:2], np.float32) for name in names}
        parts["skin"][:, : rgb.shape[1] // 2] = 1.0
        parts["ears"][5:10, -10:-5] = 1.0
        return parts


def test_a_parser_decides_where_it_is_there(person: Photo):
    parser = Parts()
    regions = Regions.of(person.rgb, person.face, parser)  # pyright: ignore[reportArgumentType]
    assert regions.face[0, 0] == 1
    assert regions.face[0, -1] == 0
    ears = regions.with_ears()
    assert ears[7, -7] == 1
    assert regions.redrawn()[7, -7] == 0


def test_a_face_of_a_few_pixels_cannot_be_fused(person: Photo):
    from sdapi.portrait.pixels.frame import moved

    tiny = moved(person.face, np.array([[0.01, 0, 0], [0, 0.01, 0]]))
    small = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(FaceError):
        WarpSwapper().swap(small, tiny, person.rgb, person.face)
