"""Which image encoder an IP-Adapter preprocessor stands for (contract: controlnet-api 8)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import AnnotatorMissing, BadRequest, near_names
from sdapi.services.catalog.model_files.finding import find_files
from sdapi.settings import Settings

AUTO: Final = "ip-adapter-auto"
FOLDER: Final = "clip_vision"
_SUFFIXES: Final = {".safetensors", ".bin", ".pth", ".pt"}


@dataclass(frozen=True, slots=True)
class Encoder:
    """A published encoder, by what the names of its files have in common."""

    name: str
    file: str
    signs: tuple[str, ...]


_H: Final = Encoder(
    "CLIP ViT-H",
    "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",
    ("clip_h", "clip-h", "vit-h", "vit_h"),
)
_G: Final = Encoder(
    "CLIP ViT-bigG",
    "CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors",
    ("clip_g", "clip-g", "bigg", "vit-g", "vit_g"),
)
#: by the names of preprocessors
ENCODERS: Final = {
    "ip-adapter_clip_sd15": _H,
    "ip-adapter_clip_sdxl_plus_vith": _H,
    "ip-adapter_clip_sdxl": _G,
}
_CLIP_H, _CLIP_G = "ip-adapter_clip_sd15", "ip-adapter_clip_sdxl"
_FACE, _FACE_PLUS = "ip-adapter_face_id", "ip-adapter_face_id_plus"
#: base name of a model -> the preprocessor that `ip-adapter-auto` stands for
_PRESETS: Final = {
    **dict.fromkeys(
        (
            "ip-adapter_sd15", "ip-adapter_sd15_light", "ip-adapter_sd15_light_v11",
            "ip-adapter-plus_sd15", "ip-adapter_sd15_plus", "ip-adapter_plus_composition_sd15",
            "ip-adapter-plus-face_sd15", "ip-adapter-full-face_sd15", "ip-adapter_sdxl_vit-h",
            "ip-adapter-plus_sdxl_vit-h", "ip-adapter_plus_composition_sdxl",
            "ip-adapter-plus-face_sdxl_vit-h",
        ),
        _CLIP_H,
    ),
    **dict.fromkeys(("ip-adapter_sd15_vit-G", "ip-adapter_sdxl"), _CLIP_G),
    **dict.fromkeys(
        (
            "ip-adapter-faceid_sd15", "ip-adapter-faceid-portrait_sd15",
            "ip-adapter-faceid-portrait-v11_sd15", "ip-adapter-faceid_sdxl",
            "ip-adapter-faceid-portrait_sdxl",
        ),
        _FACE,
    ),
    **dict.fromkeys(
        (
            "ip-adapter-faceid-plus_sd15", "ip-adapter-faceid-plusv2_sd15",
            "ip-adapter-faceid-plusv2_sdxl",
        ),
        _FACE_PLUS,
    ),
    "ip-adapter_pulid_sdxl_fp16": "ip-adapter_pulid",
}  # fmt: skip
#: preprocessors whose embeddings nothing here makes
UNSUPPORTED: Final = frozenset(
    {
        _FACE,
        _FACE_PLUS,
        "ip-adapter_pulid",
        "instant_id_face_embedding",
        "facexlib",
        "clip_vision",
        "revision_clipvision",
        "revision_ignore_prompt",
    }
)


def chosen_module(module: str, model: Path | None) -> str:
    """The preprocessor that a unit acts with; raises `BadRequest` where nothing here does.

    `ip-adapter-auto` follows the model's name, letter case aside.
    """
    if module == AUTO:
        base = "" if model is None else model.stem
        presets = {name.lower(): preset for name, preset in _PRESETS.items()}
        if base.lower() not in presets:
            near = near_names(base, _PRESETS)
            raise BadRequest(
                f"{base} not found in ipadapter presets. Please try manually pick preprocessor. "
                f"Near {near}"
            )
        module = presets[base.lower()]
    if module in UNSUPPORTED:
        raise BadRequest(f"the preprocessor {module!r} is not supported by this server")
    return module


def find_encoder(module: str, settings: Settings) -> ModelFile | None:
    """The file of a preprocessor's encoder; None for one that needs none.

    Raises `AnnotatorMissing` that names the file and the folder to put it into.
    """
    encoder = ENCODERS.get(module)
    if encoder is None:
        return None
    own = settings.models_dir / FOLDER
    for folder in (own, settings.controlnet_annotators_dir / FOLDER):
        for path in sorted(find_files(folder, _SUFFIXES)):
            # Published files are often called `model`, and their folder tells which it is.
            name = str(path.relative_to(folder)).lower()
            if any(sign in name for sign in encoder.signs):
                return ModelFile.of(path)
    raise AnnotatorMissing(
        f"the preprocessor {module!r} needs the image encoder {encoder.name}, such as "
        f"{encoder.file}, in {own}, and it is not there"
    )
