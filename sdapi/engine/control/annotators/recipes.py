"""How each annotator is loaded from its files, and how it draws."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from sdapi.engine.control.annotators.detected_map import DetectedMap, Pixels
from sdapi.engine.control.annotators.kinds import dwpose, edges, lama, openpose, segments, surfaces
from sdapi.engine.control.annotators.sliders import Sliders

__all__ = ["RECIPES", "Recipe", "Sliders"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A network, and what is done with it; annotators with the same network share it."""

    load: Callable[[tuple[Path, ...]], Any]
    #: (the network, the canvas, the sliders)
    draw: Callable[[Any, Pixels, Sliders], DetectedMap]


def _pixels(
    load: Callable[[tuple[Path, ...]], Any], draw: Callable[[Any, Pixels, Sliders], Pixels]
) -> Recipe:
    return Recipe(load, lambda network, canvas, at: DetectedMap(draw(network, canvas, at)))


def _openpose(*, body: bool = True, hands: bool = False, face: bool = False) -> Recipe:
    return Recipe(openpose.load, partial(openpose.draw, body=body, hands=hands, face=face))


RECIPES: Final = {
    "hed": _pixels(edges.load_hed, edges.hed),
    "hed_safe": _pixels(edges.load_hed, partial(edges.hed, safe=True)),
    "scribble_hed": _pixels(edges.load_hed, partial(edges.hed, scribble=True)),
    "pidinet": _pixels(edges.load_pidinet, edges.pidinet),
    "pidinet_safe": _pixels(edges.load_pidinet, partial(edges.pidinet, safe=True)),
    "pidinet_scribble": _pixels(edges.load_pidinet, partial(edges.pidinet, scribble=True)),
    "pidinet_sketch": _pixels(edges.load_pidinet, partial(edges.pidinet, apply_filter=True)),
    "softedge_teed": _pixels(edges.load_teed, edges.teed),
    "softedge_anyline": _pixels(edges.load_teed, edges.anyline),
    "lineart": _pixels(edges.load_lineart, edges.lineart),
    "lineart_coarse": _pixels(edges.load_lineart, edges.lineart),
    "lineart_anime": _pixels(edges.load_lineart_anime, edges.lineart_anime),
    "mlsd": _pixels(edges.load_mlsd, edges.mlsd),
    "normal_bae": _pixels(surfaces.load_normal_bae, surfaces.normal_bae),
    "depth": _pixels(surfaces.load_midas, surfaces.midas_depth),
    "normal_map": _pixels(surfaces.load_midas, surfaces.midas_normal),
    "depth_zoe": _pixels(surfaces.load_zoe, surfaces.zoe),
    "depth_leres": _pixels(surfaces.load_leres, surfaces.leres),
    "depth_anything": _pixels(surfaces.load_depth_anything, surfaces.depth_anything),
    "depth_anything_v2": _pixels(surfaces.load_depth_anything, surfaces.depth_anything),
    "oneformer_ade20k": _pixels(segments.load_oneformer, segments.oneformer),
    "oneformer_coco": _pixels(segments.load_oneformer, segments.oneformer),
    "segmentation": _pixels(segments.load_semantic, segments.semantic),
    "mobile_sam": _pixels(segments.load_sam, segments.sam),
    "inpaint_only+lama": _pixels(lama.load, lama.fill),
    "openpose": _openpose(),
    "openpose_hand": _openpose(hands=True),
    "openpose_face": _openpose(face=True),
    "openpose_faceonly": _openpose(body=False, face=True),
    "openpose_full": _openpose(hands=True, face=True),
    "dw_openpose_full": Recipe(dwpose.load, dwpose.draw),
}
