"""The weight files of annotators: names as published, looked for below one folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from sdapi.errors import AnnotatorMissing, BadRequest

#: (a file, or a folder that ends with /; the folder it is to be below)
Fetch = Callable[[str, Path], None]

_OPENPOSE: Final = ("body_pose_model.pth", "hand_pose_model.pth", "facenet.pth")

#: the files that an annotator reads; a name that ends with / is a folder in transformers' form
FILES: Final[dict[str, tuple[str, ...]]] = {
    "hed": ("ControlNetHED.pth",),
    "hed_safe": ("ControlNetHED.pth",),
    "scribble_hed": ("ControlNetHED.pth",),
    "pidinet": ("table5_pidinet.pth",),
    "pidinet_safe": ("table5_pidinet.pth",),
    "pidinet_scribble": ("table5_pidinet.pth",),
    "pidinet_sketch": ("table5_pidinet.pth",),
    "softedge_teed": ("7_model.pth",),
    "softedge_anyline": ("MTEED.pth",),
    "lineart": ("sk_model.pth",),
    "lineart_coarse": ("sk_model2.pth",),
    "lineart_anime": ("netG.pth",),
    "mlsd": ("mlsd_large_512_fp32.pth",),
    "normal_bae": ("scannet.pt",),
    "depth": ("dpt_hybrid-midas-501f0c75.pt",),
    "normal_map": ("dpt_hybrid-midas-501f0c75.pt",),
    "depth_zoe": ("ZoeD_M12_N.pt",),
    "depth_leres": ("res101.pth",),
    "depth_anything": ("depth_anything/",),
    "depth_anything_v2": ("depth_anything_v2/",),
    "oneformer_ade20k": ("oneformer_ade20k/",),
    "oneformer_coco": ("oneformer_coco/",),
    "segmentation": ("upernet_ade20k/",),
    "mobile_sam": ("mobile_sam.pt",),
    "inpaint_only+lama": ("ControlNetLama.pth",),
    "openpose": _OPENPOSE[:1],
    "openpose_hand": _OPENPOSE[:2],
    "openpose_face": (_OPENPOSE[0], _OPENPOSE[2]),
    "openpose_faceonly": (_OPENPOSE[0], _OPENPOSE[2]),
    "openpose_full": _OPENPOSE,
    "dw_openpose_full": ("yolox_l.onnx", "dw-ll_ucoco_384.onnx"),
}
#: drawn from what the portrait part sees; its file is not one of these
FACES: Final = "mediapipe_face"
#: those that draw by chance, so that a seed makes a difference
SEEDED: Final = frozenset({"mobile_sam"})
#: networks that nothing here can run
UNSUPPORTED: Final = frozenset(
    {
        "anime_face_segment",
        "animal_openpose",
        "densepose",
        "densepose_parula",
        "depth_hand_refiner",
        "depth_leres++",
        "instant_id_face_keypoints",
        "lineart_anime_denoise",
        "normal_dsine",
    }
)


def annotator_files(name: str, folder: Path, fetch: Fetch | None = None) -> tuple[Path, ...]:
    """The files of an annotator, found in the folder or anywhere below it.

    `fetch` brings what is not there. Raises `AnnotatorMissing` that names a missing one,
    `BadRequest` for a preprocessor that this server cannot run.
    """
    if name in UNSUPPORTED:
        raise BadRequest(f"the preprocessor {name!r} is not supported by this server")
    if name == FACES:
        return ()
    return tuple(_file(name, file, folder, fetch) for file in FILES[name])


def _found(file: str, folder: Path) -> Path | None:
    wanted = file.rstrip("/")
    found = sorted(folder.rglob(wanted)) if folder.is_dir() else []
    return next((each for each in found if each.is_dir() == (wanted != file)), None)


def _file(name: str, file: str, folder: Path, fetch: Fetch | None) -> Path:
    path = _found(file, folder)
    if path is None and fetch is not None:
        fetch(file, folder)
        path = _found(file, folder)
    if path is None:
        wanted = file.rstrip("/")
        kind = "a folder as transformers saves it (config.json, model.safetensors)"
        what = f"{wanted}, {kind}," if wanted != file else wanted
        raise AnnotatorMissing(
            f"the preprocessor {name!r} needs {what} in {folder}, and it is not there"
        )
    return path
