"""Where annotators' files are published, and how one is fetched (`--download-annotators`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sdapi.errors import AnnotatorMissing

_LLLYASVIEL: Final = "lllyasviel/Annotators"
#: a file or folder of `files.FILES` -> repository, and its place there; folders are whole ones
_PLACES: Final[Mapping[str, tuple[str, str]]] = {
    **{
        name: (_LLLYASVIEL, name)
        for name in (
            "ControlNetHED.pth", "table5_pidinet.pth", "sk_model.pth", "sk_model2.pth", "netG.pth",
            "mlsd_large_512_fp32.pth", "scannet.pt", "dpt_hybrid-midas-501f0c75.pt",
            "ZoeD_M12_N.pt", "res101.pth", "body_pose_model.pth", "hand_pose_model.pth",
            "facenet.pth", "ControlNetLama.pth",
        )
    },
    "7_model.pth": ("bdsqlsz/qinglong_controlnet-lllite", "Annotators/7_model.pth"),
    "MTEED.pth": ("TheMistoAI/MistoLine", "Anyline/MTEED.pth"),
    "mobile_sam.pt": ("dhkim2810/MobileSAM", "mobile_sam.pt"),
    "yolox_l.onnx": ("yzd-v/DWPose", "yolox_l.onnx"),
    "dw-ll_ucoco_384.onnx": ("yzd-v/DWPose", "dw-ll_ucoco_384.onnx"),
    "depth_anything/": ("LiheYoung/depth-anything-small-hf", ""),
    "depth_anything_v2/": ("depth-anything/Depth-Anything-V2-Small-hf", ""),
    "oneformer_ade20k/": ("shi-labs/oneformer_ade20k_swin_large", ""),
    "oneformer_coco/": ("shi-labs/oneformer_coco_swin_large", ""),
    "upernet_ade20k/": ("openmmlab/upernet-convnext-small", ""),
}  # fmt: skip


def fetch(file: str, folder: Path) -> None:
    """Bring a file, or a folder that ends with /, below `folder`; blocks for as long as it takes.

    Raises `AnnotatorMissing` with the reason when the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, place = _PLACES[file]
    try:
        if file.endswith("/"):
            snapshot_download(repository, local_dir=folder / file.rstrip("/"))
        else:
            hf_hub_download(repository, place, local_dir=folder)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else "no reason"
        raise AnnotatorMissing(
            f"{file} cannot be fetched from {repository}: {reason}; put it into {folder}"
        ) from error


def published() -> frozenset[str]:
    """The files that can be fetched."""
    return frozenset(_PLACES)
