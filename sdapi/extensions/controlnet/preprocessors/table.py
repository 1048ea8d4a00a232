"""Every preprocessor of the reference, in the order in which it lists them.

Contract: controlnet-api 11; sliders as recorded from `/controlnet/module_list`.
"""

from typing import Final

from sdapi.extensions.controlnet.preprocessors.preprocessor import (
    HIDDEN,
    Kind,
    Mask,
    Preprocessor,
    Slider,
)

_P = Preprocessor
_NETWORK, _EMBEDDING = Kind.NETWORK, Kind.EMBEDDING
_SCRIBBLE = ("Scribble", "SparseCtrl")
_FROM_WHITE = " (from white bg & black line)"
_FIXED = Slider("", 0, 1, 512)

_VARIATION: Final = Slider("Variation", 3.0, 32.0, 8.0, 1.0)
_GAMMA: Final = Slider("Gamma Correction", 0.1, 2.0, 1.0, 0.001)
_NOISE: Final = Slider("Noise Augmentation", 0.0, 1.0, 0.0)
_FIDELITY: Final = Slider("Style Fidelity (only for Balanced mode)", 0.0, 1.0, 0.5)
_SAFE_STEPS: Final = Slider("Safe Steps", 0, 10, 2, 1)
_NEAR: Final = Slider("Remove Near %", 0, 100, 0, 0.1)
_FAR: Final = Slider("Remove Background %", 0, 100, 0, 0.1)


def _networks(tag: str, *names: tuple[str, str] | str) -> dict[str, Preprocessor]:
    """Preprocessors by networks that have no sliders of their own."""
    pairs = [(n, n) if isinstance(n, str) else n for n in names]
    return {name: _P(name, label, (tag,), _NETWORK) for name, label in pairs}


def _embedding(name: str, label: str | None = None) -> Preprocessor:
    return _P(name, label or name, ("IP-Adapter",), _EMBEDDING, mask=Mask.ACCEPTED)


def _reference(name: str) -> Preprocessor:
    return _P(name, name, ("Reference",), _EMBEDDING, slider_1=_FIDELITY, model_free=True)


def _revision(name: str) -> Preprocessor:
    return _P(
        name,
        name,
        ("Revision",),
        _EMBEDDING,
        slider_1=_NOISE,
        mask=Mask.ACCEPTED,
        model_free=True,
    )


def _inpaint(name: str, label: str | None = None, kind: Kind = Kind.WEIGHTLESS) -> Preprocessor:
    label = label or name
    return _P(name, label, ("Inpaint",), kind, resolution=HIDDEN, mask=Mask.REQUIRED)


PREPROCESSORS: Final = (
    _P("none", "none", ("InstructP2P",)),
    _embedding("ip-adapter-auto"),
    _P(
        "tile_resample",
        "tile_resample",
        ("Tile",),
        slider_1=Slider("Down Sampling Rate", 1.0, 8.0, 1.0),
    ),
    _P("pidinet", "softedge_pidinet", ("SoftEdge",), _NETWORK),
    _P("oneformer_ade20k", "seg_ofade20k", ("Segmentation",), _NETWORK),
    _P("pidinet_scribble", "scribble_pidinet", _SCRIBBLE, _NETWORK),
    _revision("revision_clipvision"),
    _reference("reference_only"),
    _P("recolor_luminance", "recolor_luminance", ("Recolor",), slider_1=_GAMMA),
    _P("openpose_full", "openpose_full", ("OpenPose",), _NETWORK),
    _P("normal_bae", "normal_bae", ("NormalMap",), _NETWORK),
    _P(
        "mlsd",
        "mlsd",
        ("MLSD",),
        _NETWORK,
        slider_1=Slider("MLSD Value Threshold", 0.01, 2.0, 0.1),
        slider_2=Slider("MLSD Distance Threshold", 0.01, 20.0, 0.1),
    ),
    _P("lineart_standard", "lineart_standard" + _FROM_WHITE, ("Lineart",)),
    _embedding("ip-adapter_clip_sd15", "ip-adapter_clip_h"),
    _inpaint("inpaint_only"),
    _P("depth", "depth_midas", ("Depth",), _NETWORK),
    _P(
        "canny",
        "canny",
        ("Canny",),
        slider_1=Slider("Low Threshold", 1, 255, 100, 1),
        slider_2=Slider("High Threshold", 1, 255, 200, 1),
    ),
    _P(
        "invert",
        "invert" + _FROM_WHITE,
        ("Canny", "Lineart", "Scribble", "MLSD"),
        resolution=HIDDEN,
    ),
    _P(
        "tile_colorfix+sharp",
        "tile_colorfix+sharp",
        ("Tile",),
        slider_1=_VARIATION,
        slider_2=Slider("Sharpness", 0.0, 2.0, 1.0),
    ),
    _P("tile_colorfix", "tile_colorfix", ("Tile",), slider_1=_VARIATION),
    _P("threshold", "threshold", slider_1=Slider("Binarization Threshold", 0, 255, 127)),
    _P("clip_vision", "t2ia_style_clipvision", ("T2I-Adapter",), _EMBEDDING, mask=Mask.ACCEPTED),
    _P("pidinet_sketch", "t2ia_sketch_pidi", ("T2I-Adapter",), _NETWORK),
    _P("color", "t2ia_color_grid", ("T2I-Adapter",)),
    _P("softedge_teed", "softedge_teed", ("SoftEdge",), _NETWORK, slider_1=_SAFE_STEPS),
    _P("pidinet_safe", "softedge_pidisafe", ("SoftEdge",), _NETWORK),
    _P("hed_safe", "softedge_hedsafe", ("SoftEdge",), _NETWORK),
    _P("hed", "softedge_hed", ("SoftEdge",), _NETWORK),
    _P(
        "softedge_anyline",
        "softedge_anyline",
        ("SoftEdge",),
        _NETWORK,
        resolution=Slider("Resolution", 64, 2048, 1280, 8),
        slider_1=_SAFE_STEPS,
    ),
    _P("shuffle", "shuffle", ("Shuffle",), resolution=_FIXED),
    _P("segmentation", "seg_ufade20k", ("Segmentation",), _NETWORK),
    _P("oneformer_coco", "seg_ofcoco", ("Segmentation",), _NETWORK),
    _P("anime_face_segment", "seg_anime_face", ("Segmentation",), _NETWORK),
    _P("scribble_xdog", "scribble_xdog", _SCRIBBLE, slider_1=Slider("XDoG Threshold", 1, 64, 32)),
    _P("scribble_hed", "scribble_hed", _SCRIBBLE, _NETWORK),
    _revision("revision_ignore_prompt"),
    _reference("reference_adain+attn"),
    _reference("reference_adain"),
    _P("recolor_intensity", "recolor_intensity", ("Recolor",), slider_1=_GAMMA),
    *_networks(
        "OpenPose", "openpose_hand", "openpose_faceonly", "openpose_face", "openpose"
    ).values(),
    _P(
        "normal_map",
        "normal_midas",
        ("NormalMap",),
        _NETWORK,
        slider_1=Slider("Normal Background Threshold", 0.0, 1.0, 0.4),
    ),
    _P(
        "normal_dsine",
        "normal_dsine",
        ("NormalMap",),
        _NETWORK,
        slider_1=Slider("Fov", 0, 360, 60, 0.1),
        slider_2=Slider("Iterations", 1, 20, 5, 1),
    ),
    _P("mobile_sam", "mobile_sam", ("Segmentation",), _NETWORK),
    _P(
        "mediapipe_face",
        "mediapipe_face",
        (),
        _NETWORK,
        slider_1=Slider("Max Faces", 1, 10, 1, 1),
        slider_2=Slider("Min Face Confidence", 0.01, 1.0, 0.5),
    ),
    *_networks(
        "Lineart",
        ("lineart", "lineart_realistic"),
        "lineart_coarse",
        "lineart_anime_denoise",
        "lineart_anime",
    ).values(),
    _P("ip-adapter_pulid", "ip-adapter_pulid", ("IP-Adapter",), _EMBEDDING, resolution=HIDDEN),
    _P("ip-adapter_face_id_plus", "ip-adapter_face_id_plus", ("IP-Adapter",), _EMBEDDING),
    _P("ip-adapter_face_id", "ip-adapter_face_id", ("IP-Adapter",), _EMBEDDING),
    _embedding("ip-adapter_clip_sdxl_plus_vith"),
    _embedding("ip-adapter_clip_sdxl", "ip-adapter_clip_g"),
    _P("instant_id_face_keypoints", "instant_id_face_keypoints", ("Instant-ID",), _NETWORK),
    _P("instant_id_face_embedding", "instant_id_face_embedding", ("Instant-ID",), _EMBEDDING),
    _inpaint("inpaint_only+lama", kind=_NETWORK),
    _inpaint("inpaint", "inpaint_global_harmonious"),
    _P("facexlib", "facexlib", (), _EMBEDDING, resolution=HIDDEN),
    *_networks("OpenPose", "dw_openpose_full").values(),
    _P("depth_zoe", "depth_zoe", ("Depth",), _NETWORK),
    _P("depth_leres++", "depth_leres++", ("Depth",), _NETWORK, slider_1=_NEAR, slider_2=_FAR),
    _P("depth_leres", "depth_leres", ("Depth",), _NETWORK, slider_1=_NEAR, slider_2=_FAR),
    *_networks("Depth", "depth_hand_refiner", "depth_anything_v2", "depth_anything").values(),
    *_networks(
        "OpenPose",
        ("densepose_parula", "densepose_parula (black bg & blue torso)"),
        # The reference's spelling, which clients send.
        ("densepose", "densepose (pruple bg & purple torso)"),
    ).values(),
    _P("blur_gaussian", "blur_gaussian", ("Tile",), slider_1=Slider("Sigma", 0.01, 64.0, 9.0)),
    *_networks("OpenPose", "animal_openpose").values(),
)
