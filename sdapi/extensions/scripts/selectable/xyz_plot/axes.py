"""What an axis can vary (contract: webui-scripts 8.1).

Requests name axes by their place among those of their kind, so the order below is the webui's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, Literal

from sdapi.engine.sampling.sampler_names import find_sampler
from sdapi.errors import BadRequest, UnknownName, UnknownSampler
from sdapi.extensions.scripts.selectable.xyz_plot.values import ValueType
from sdapi.services.catalog.catalog import AUTOMATIC, NONE
from sdapi.services.scripts.script import BOTH, GenerationRequest, Kind

if TYPE_CHECKING:
    from sdapi.services.container import Services


#: characters that a replacement may bring into a prompt
_MAX_REPLACED: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Setting:
    """One value of an axis for one cell."""

    value: Any
    #: all of the axis
    values: Sequence[Any]
    services: "Services"


Apply = Callable[[GenerationRequest, Setting], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Axis:
    """Something that an X/Y/Z plot can vary."""

    name: str
    type: ValueType
    #: the fields of the request that a value changes; raises `BadRequest` and its kin
    apply: Apply
    #: how labels show a value: with the axis' name, alone, or as a file name alone
    label: Literal["named", "value", "file"] = "named"
    #: it takes its values from a list rather than from a text
    has_list: bool = False
    #: how dear a change is, compared with that of other axes
    cost: float = 0.0
    kinds: frozenset[Kind] = BOTH

    def label_of(self, value: Any) -> str:
        """What a legend says beside a value."""
        if self.type == "none":
            return ""
        if self.type == "order":
            return ", ".join(value)
        if self.label == "file":
            return PurePath(value).name
        shown = round(value, 8) if isinstance(value, float) else value
        return str(shown) if self.label == "value" else f"{self.name}: {shown}"


def _field(name: str) -> Apply:
    return lambda request, setting: {name: setting.value}


def _override(key: str) -> Apply:
    return lambda request, setting: _overridden(request, {key: setting.value})


def _flag_override(key: str) -> Apply:
    return lambda request, setting: _overridden(request, {key: setting.value.lower() == "true"})


def _ranged_override(name: str, key: str, low: int, high: int) -> Apply:
    def apply(request: GenerationRequest, setting: Setting) -> dict[str, Any]:
        if not low <= setting.value <= high:
            raise BadRequest(f'{name} value "{setting.value}" out of range [{low}, {high}]')
        return _overridden(request, {key: setting.value})

    return apply


def _overridden(request: GenerationRequest, options: dict[str, Any]) -> dict[str, Any]:
    return {"override_settings": (request.override_settings or {}) | options}


def _nothing(request: GenerationRequest, setting: Setting) -> dict[str, Any]:
    return {}


def _search_and_replace(request: GenerationRequest, setting: Setting) -> dict[str, Any]:
    """The first value is what every value is put in place of."""
    searched, texts = setting.values[0], (request.prompt or "", request.negative_prompt or "")
    if not any(searched in text for text in texts):
        raise BadRequest(f"Prompt S/R did not find {searched} in prompt or negative prompt.")
    for text in texts:
        if not searched or text.count(searched) * len(setting.value) > _MAX_REPLACED:
            raise BadRequest(f"Prompt S/R: {searched[:100]!r} stands too often in the prompt")
    prompt, negative = (text.replace(searched, setting.value) for text in texts)
    return {"prompt": prompt, "negative_prompt": negative}


def _reordered(request: GenerationRequest, setting: Setting) -> dict[str, Any]:
    """The values, where they stand in the prompt, in another order."""
    rest, parts = request.prompt or "", list[str]()
    for part in sorted(setting.value, key=rest.find):
        before, found, rest = rest.partition(part)
        if not found:
            raise BadRequest(
                f"Prompt order: {part!r} is not in the prompt, or overlaps another part"
            )
        parts.append(before)
    slots = zip(parts, setting.value, strict=True)
    return {"prompt": "".join(before + part for before, part in slots) + rest}


def _sampler(field: str) -> Apply:
    def apply(request: GenerationRequest, setting: Setting) -> dict[str, Any]:
        try:
            find_sampler(setting.value)
        except UnknownSampler:
            raise UnknownSampler(f"Unknown sampler: {setting.value}") from None
        return {field: setting.value}

    return apply


def _checkpoint(request: GenerationRequest, setting: Setting) -> dict[str, Any]:
    try:
        found = setting.services.catalog.closest_checkpoint(setting.value)
    except UnknownName as error:
        raise UnknownName(f"Unknown checkpoint: {setting.value} ({error.detail})") from None
    return _overridden(request, {"sd_model_checkpoint": found.title})


def _refiner(request: GenerationRequest, setting: Setting) -> dict[str, Any]:
    if setting.value in ("", "None", "none"):
        return {"refiner_checkpoint": None}
    try:
        found = setting.services.catalog.closest_checkpoint(setting.value)
    except UnknownName as error:
        raise UnknownName(f"Unknown checkpoint: {setting.value} ({error.detail})") from None
    return {"refiner_checkpoint": found.title}


def _vae(request: GenerationRequest, setting: Setting) -> dict[str, Any]:
    name = setting.value.lower()
    if name in ("auto", "automatic"):
        return _overridden(request, {"sd_vae": AUTOMATIC})
    known = {NONE.lower(): NONE} | {v.name.lower(): v.name for v in setting.services.catalog.vaes}
    return _overridden(request, {"sd_vae": known.get(name, setting.value)})


def _styles(request: GenerationRequest, setting: Setting) -> dict[str, Any]:
    return {"styles": [*(request.styles or []), *setting.value.split(",")]}


def _unipc_order(request: GenerationRequest, setting: Setting) -> dict[str, Any]:
    return _overridden(request, {"uni_pc_order": min(setting.value, (request.steps or 1) - 1)})


def _faces(request: GenerationRequest, setting: Setting) -> dict[str, Any]:
    name = setting.value.lower()
    models = {"codeformer": "CodeFormer", "gfpgan": "GFPGAN"}
    if name in models:
        changed = _overridden(request, {"face_restoration_model": models[name]})
        return {"restore_faces": True} | changed
    return {"restore_faces": name in ("true", "yes", "y", "1")}


def _size(request: GenerationRequest, setting: Setting) -> dict[str, Any]:
    width, _, height = setting.value.partition("x")
    try:
        return {"width": int(width), "height": int(height)}
    except ValueError:
        raise BadRequest(f"Size: {setting.value!r} is no size such as 512x768") from None


_TXT2IMG: Final[frozenset[Kind]] = frozenset({"txt2img"})
_IMG2IMG: Final[frozenset[Kind]] = frozenset({"img2img"})
NOTHING: Final = Axis("Nothing", "none", _nothing)
SEED: Final = Axis("Seed", "int", _field("seed"))
SUBSEED: Final = Axis("Var. seed", "int", _field("subseed"))


def _floats(names: dict[str, Apply]) -> list[Axis]:
    return [Axis(name, "float", apply) for name, apply in names.items()]


#: those that are always there
_AXES: Final[tuple[Axis, ...]] = (
    NOTHING,
    SEED,
    SUBSEED,
    Axis("Var. strength", "float", _field("subseed_strength")),
    Axis("Steps", "int", _field("steps")),
    Axis("Hires steps", "int", _field("hr_second_pass_steps"), kinds=_TXT2IMG),
    Axis("CFG Scale", "float", _field("cfg_scale")),
    Axis("Image CFG Scale", "float", _field("image_cfg_scale"), kinds=_IMG2IMG),
    Axis("Prompt S/R", "text", _search_and_replace, "value"),
    Axis("Prompt order", "order", _reordered, "value"),
    Axis("Sampler", "text", _sampler("sampler_name"), "value", has_list=True),
    Axis("Hires sampler", "text", _sampler("hr_sampler_name"), has_list=True, kinds=_TXT2IMG),
    Axis("Checkpoint name", "text", _checkpoint, "file", has_list=True, cost=1.0),
    *_floats(
        {
            "Negative Guidance minimum sigma": _field("s_min_uncond"),
            "Sigma Churn": _field("s_churn"),
            "Sigma min": _field("s_tmin"),
            "Sigma max": _field("s_tmax"),
            "Sigma noise": _field("s_noise"),
        }
    ),
    Axis("Schedule type", "text", _field("scheduler"), has_list=True),
    *_floats(
        {
            "Schedule min sigma": _override("sigma_min"),
            "Schedule max sigma": _override("sigma_max"),
            "Schedule rho": _override("rho"),
            "Beta schedule alpha": _override("beta_dist_alpha"),
            "Beta schedule beta": _override("beta_dist_beta"),
            "Eta": _field("eta"),
        }
    ),
    Axis("Clip skip", "int", _override("CLIP_stop_at_last_layers")),
    *_floats(
        {
            "Denoising": _field("denoising_strength"),
            "Initial noise multiplier": _field("initial_noise_multiplier"),
            "Extra noise": _override("img2img_extra_noise"),
        }
    ),
    Axis("Hires upscaler", "text", _field("hr_upscaler"), has_list=True, kinds=_TXT2IMG),
    Axis("Cond. Image Mask Weight", "float", _override("inpainting_mask_weight"), kinds=_IMG2IMG),
    Axis("VAE", "text", _vae, has_list=True, cost=0.7),
    Axis("Styles", "text", _styles, has_list=True),
    Axis("UniPC Order", "int", _unipc_order, cost=0.5),
    Axis("Face restore", "text", _faces, "value"),
    Axis("Token merging ratio", "float", _override("token_merging_ratio")),
    Axis("Token merging ratio high-res", "float", _override("token_merging_ratio_hr")),
    Axis(
        "Always discard next-to-last sigma",
        "text",
        _flag_override("always_discard_next_to_last_sigma"),
        has_list=True,
    ),
    Axis("SGM noise multiplier", "text", _flag_override("sgm_noise_multiplier"), has_list=True),
    Axis("Refiner checkpoint", "text", _refiner, "file", has_list=True, cost=1.0),
    Axis("Refiner switch at", "float", _field("refiner_switch_at")),
    Axis("RNG source", "text", _override("randn_source"), has_list=True),
    Axis("FP8 mode", "text", _override("fp8_storage"), has_list=True, cost=0.9),
    Axis("Size", "text", _size),
)


def _hypertile_flag(name: str, key: str) -> Axis:
    return Axis(f"[Hypertile] {name}", "text", _flag_override(f"hypertile_{key}"), has_list=True)


def _hypertile_number(name: str, key: str, most: int, *, has_list: bool = False) -> Axis:
    name = f"[Hypertile] {name}"
    apply = _ranged_override(name, f"hypertile_{key}", 0, most)
    return Axis(name, "int", apply, has_list=has_list)


#: those that are there with the page only
_HYPERTILE_AXES: Final[tuple[Axis, ...]] = (
    _hypertile_flag("Unet First pass Enabled", "enable_unet"),
    _hypertile_flag("Unet Second pass Enabled", "enable_unet_secondpass"),
    _hypertile_number("Unet Max Depth", "max_depth_unet", 3, has_list=True),
    _hypertile_number("Unet Max Tile Size", "max_tile_unet", 512),
    _hypertile_number("Unet Swap Size", "swap_size_unet", 64),
    _hypertile_flag("VAE Enabled", "enable_vae"),
    _hypertile_number("VAE Max Depth", "max_depth_vae", 3, has_list=True),
    _hypertile_number("VAE Max Tile Size", "max_tile_vae", 512),
    _hypertile_number("VAE Swap Size", "swap_size_vae", 64),
)


def axes_of(kind: Kind, *, has_page: bool) -> list[Axis]:
    """The axes of a kind of request, by the places that requests name them by."""
    own = [axis for axis in _AXES if kind in axis.kinds]
    return [*own, *_HYPERTILE_AXES] if has_page else own
