"""Upscaling (extra-single-image, extra-batch-images), png-info and interrogate."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sdapi.schemas.coercion import Bool, Str, ZeroOrOne, to_float, to_int
from sdapi.schemas.examples import PICTURE

#: 0 to 1, no NaN
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(to_float)]
_Positive = Annotated[float, Field(gt=0), BeforeValidator(to_float)]
_Side = Annotated[int, Field(ge=1), BeforeValidator(to_int)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ExtrasFields(_Request):
    """What both extras requests have."""

    resize_mode: ZeroOrOne = Field(
        0, description="0: by upscaling_resize, 1: to upscaling_resize_w x upscaling_resize_h"
    )
    show_extras_results: Bool = Field(True, description="No effect")
    gfpgan_visibility: Share = Field(0, description="Share of GFPGAN's result")
    codeformer_visibility: Share = Field(0, description="Share of CodeFormer's result")
    codeformer_weight: Share = Field(0, description="0 strongest effect, 1 weakest")
    upscaling_resize: _Positive = Field(2, description="Factor, resize_mode 0")
    upscaling_resize_w: _Side = Field(512, description="Target width, resize_mode 1")
    upscaling_resize_h: _Side = Field(512, description="Target height, resize_mode 1")
    upscaling_crop: Bool = Field(True, description="Cut off what is over, resize_mode 1")
    upscaler_1: Str = Field("None", description="Name from /sdapi/v1/upscalers")
    upscaler_2: Str = Field("None", description="A second one, mixed in")
    extras_upscaler_2_visibility: Share = Field(0, description="Share of the second")
    upscale_first: Bool = Field(False, description="No effect: upscaling is always first")


class ExtrasSingleImageRequest(ExtrasFields):
    """`POST /sdapi/v1/extra-single-image`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"image": PICTURE, "upscaler_1": "Lanczos", "upscaling_resize": 2}]
        }
    )
    image: Str = Field("", description="Picture as base64, data: URI or URL")


class FileData(_Request):
    """A picture with its name."""

    data: Str = Field(description="Picture as base64 or data: URI")
    name: Str = Field(description="File name")


class ExtrasBatchImagesRequest(ExtrasFields):
    """`POST /sdapi/v1/extra-batch-images`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "imageList": [{"data": PICTURE, "name": "disc.png"}],
                    "upscaler_1": "Lanczos",
                    "upscaling_resize": 2,
                }
            ]
        }
    )
    imageList: list[FileData] = Field(description="Pictures; one result each, in order")


class ExtrasSingleImageResponse(BaseModel):
    """The answer to one picture."""

    html_info: str = Field(description="What was done, as HTML")
    image: str = Field(description="Picture in base64 without prefix")


class ExtrasBatchImagesResponse(BaseModel):
    """The answer to several."""

    html_info: str = Field(description="What was done, as HTML")
    images: list[str] = Field(description="Pictures in base64 without prefix")


class PNGInfoRequest(_Request):
    """`POST /sdapi/v1/png-info`."""

    image: Str = Field(description="Picture as base64 or data: URI", examples=[PICTURE])


class PNGInfoResponse(BaseModel):
    """The text a picture carries."""

    info: str = Field(description='Infotext, "" if there is none')
    items: dict[str, Any] = Field(description="Every other entry of the picture")
    parameters: dict[str, Any] = Field(description="The infotext's fields, with defaults")


class InterrogateRequest(_Request):
    """`POST /sdapi/v1/interrogate`."""

    image: Str = Field("", description="Picture as base64, data: URI or URL", examples=[PICTURE])
    model: Str = Field("clip", description="clip or deepdanbooru")


class InterrogateResponse(BaseModel):
    """A description of a picture."""

    caption: str = Field(description="A sentence and phrases, or tags", examples=["a yellow disc"])
