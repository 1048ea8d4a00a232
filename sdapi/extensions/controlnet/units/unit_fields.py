"""The fields of a unit as requests send them (contract: controlnet-api 2)."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from sdapi.errors import BadRequest
from sdapi.schemas.coercion import Bool, Float, Int, Str

ResizeMode = Literal["Just Resize", "Crop and Resize", "Resize and Fill"]
ModeName = Literal["Balanced", "My prompt is more important", "ControlNet is more important"]
HiresName = Literal["Both", "Low res only", "High res only"]
UnionName = Literal[
    "OpenPose",
    "Depth",
    "Soft Edge",
    "Hard Edge",
    "Normal Map",
    "Segmentation",
    "Tile",
    "Inpaint",
    "Unknown",
]

#: by the integers of older releases
_RESIZE_MODES: Final = ("Just Resize", "Crop and Resize", "Resize and Fill")
_CONTROL_MODES: Final = ("Balanced", "My prompt is more important", "ControlNet is more important")
_RESIZE_ALIASES: Final = {
    "Inner Fit (Scale to Fit)": "Crop and Resize",
    "Scale to Fit (Inner Fit)": "Crop and Resize",
    "Outer Fit (Shrink to Fit)": "Resize and Fill",
    "Envelope (Outer Fit)": "Resize and Fill",
}
#: old name -> the field it stands for
_OLD_NAMES: Final = {
    "input_image": "image",
    "mask_image": "mask",
    "lowvram": "low_vram",
    "guidance": "guidance_end",
}
#: 32 bits, as no number here needs more
_LARGEST_INT: Final = 2**31 - 1
_MOST_WEIGHTS: Final = 64
_NO_PICTURE: Final = ("image", "mask", "image_link", "effective_region_mask")


def _resize_mode(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value in range(3):
        return _RESIZE_MODES[value]
    return _RESIZE_ALIASES.get(value, value) if isinstance(value, str) else value


def _control_mode(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value in range(3):
        return _CONTROL_MODES[value]
    return value


class UnitFields(BaseModel):
    """One unit. Unknown fields are ignored, as clients send those of many releases."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    is_ui: Bool = False
    input_mode: Literal["simple", "batch", "merge"] = "simple"
    batch_images: Any = None
    output_dir: Any = ""
    loopback: Bool = False
    enabled: Bool = False
    module: Str = "none"
    model: Str = "None"
    weight: Annotated[Float, Field(ge=0, le=2)] = 1.0
    image: Any = None
    resize_mode: Annotated[ResizeMode, BeforeValidator(_resize_mode)] = "Crop and Resize"
    low_vram: Bool = False
    processor_res: Annotated[Int, Field(ge=-_LARGEST_INT, le=_LARGEST_INT)] = -1
    threshold_a: Float = -1
    threshold_b: Float = -1
    guidance_start: Annotated[Float, Field(ge=0, le=1)] = 0.0
    guidance_end: Annotated[Float, Field(ge=0, le=1)] = 1.0
    pixel_perfect: Bool = False
    control_mode: Annotated[ModeName, BeforeValidator(_control_mode)] = "Balanced"
    inpaint_crop_input_image: Bool = True
    hr_option: HiresName = "Both"
    save_detected_map: Bool = True
    advanced_weighting: Annotated[list[Float], Field(max_length=_MOST_WEIGHTS)] | None = None
    effective_region_mask: str | None = None
    pulid_mode: Literal["Fidelity", "Extremely style"] = "Fidelity"
    union_control_type: UnionName = "Unknown"
    ipadapter_input: str | list[str] | None = None
    mask: Any = None
    batch_mask_dir: Any = None
    animatediff_batch: Bool = False
    batch_modifiers: Any = []
    batch_image_files: Any = []
    batch_keyframe_idx: Any = None
    #: stands for `image`; an addition of EAS
    image_link: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_old_names(cls, given: Any) -> Any:
        """Old names under their present ones; an empty text is no picture."""
        if not isinstance(given, dict):
            return given
        fields = dict(given)
        for old, new in _OLD_NAMES.items():
            if old in fields and new in fields:
                if old == "mask_image":
                    raise ValueError("Cannot specify both 'mask' and 'mask_image'!")
                raise ValueError(f"Conflict of field '{new}' and '{old}'")
            if old in fields:
                fields[new] = fields.pop(old)
        for name in _NO_PICTURE:
            if fields.get(name) == "":
                fields[name] = None
        if "enabled" not in fields:
            # Older releases took every unit that was sent for one to use.
            fields["enabled"] = "module" in fields or "model" in fields
        return fields

    @model_validator(mode="after")
    def _check_window(self) -> "UnitFields":
        if self.ipadapter_input:
            raise ValueError(
                "ipadapter_input holds pickled tensors, which are not read; send the picture"
            )
        if self.guidance_start > self.guidance_end:
            raise ValueError(
                f"guidance_start({self.guidance_start}) > guidance_end({self.guidance_end})"
            )
        return self

    @classmethod
    def shown(cls) -> dict[str, Any]:
        """The defaults as `script-info` shows them: the fields of the reference."""
        return cls.model_construct().model_dump(exclude={"image_link"})


def fields_given(given: dict[str, Any]) -> set[str]:
    """The fields that an element of `args` has, under their present names."""
    return {_OLD_NAMES.get(name, name) for name in given}


def read_unit(given: dict[str, Any], place: str) -> UnitFields:
    """One element of `args`; raises `BadRequest` that names the field and what it takes."""
    try:
        return UnitFields.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        where = f"{place}.{name}" if name else place
        raise BadRequest(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error
