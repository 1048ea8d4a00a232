"""txt2img and img2img: requests with every field of the webui, and their answer.

The order of the fields is that of the echoed `parameters`; mixins keep the groups that both
requests share in one place (pydantic orders fields from the last base to the first). Nulls are
allowed where the reference allows them, and what they mean is the generation service's business.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sdapi.schemas.coercion import Bool, EchoedFloat, Float, Int, Object, Str
from sdapi.schemas.examples import PICTURE


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class SamplingFields(_Request):
    """What both requests begin with."""

    prompt: Str | None = Field("", description="What to draw", examples=["a photo of a cat"])
    negative_prompt: Str | None = Field("", description="What not to draw", examples=["blurry"])
    styles: list[Str] | None = Field(None, description="Names from /sdapi/v1/prompt-styles")
    seed: Int | None = Field(-1, description="-1 or null: random", examples=[1234])
    subseed: Int | None = Field(-1, description="Seed of the variation; -1: random")
    subseed_strength: EchoedFloat | None = Field(
        0, description="0: no variation, 1: only the variation"
    )
    seed_resize_from_h: Int | None = Field(
        -1, description="Height whose composition the seed is to keep; 0 or less: off"
    )
    seed_resize_from_w: Int | None = Field(-1, description="Width, likewise")
    sampler_name: Str | None = Field(
        None,
        description="Name from /sdapi/v1/samplers; wins over sampler_index",
        examples=["Euler a"],
    )
    scheduler: Str | None = Field(
        None, description="Name or label from /sdapi/v1/schedulers", examples=["Karras"]
    )
    batch_size: Int | None = Field(1, description="Pictures drawn at the same time")
    n_iter: Int | None = Field(1, description="Batches drawn one after the other")
    steps: Int | None = Field(50, description="Sampling steps", examples=[20])
    cfg_scale: Float | None = Field(7.0, description="How closely to follow the prompt")
    width: Int | None = Field(512, description="Pixels; rounded down to a multiple of 8")
    height: Int | None = Field(512, description="Pixels; rounded down to a multiple of 8")
    restore_faces: Bool | None = Field(None, description="null: as option face_restoration")
    tiling: Bool | None = Field(None, description="null: as option tiling")
    do_not_save_samples: Bool | None = Field(False, description="No effect: see save_images")
    do_not_save_grid: Bool | None = Field(False, description="No effect: see save_images")
    eta: Float | None = Field(None, description="null: as option eta_ancestral or eta_ddim")
    denoising_strength: Float | None = Field(
        None, description="Needed with enable_hr: 0 keeps the first pass, 1 ignores it"
    )
    s_min_uncond: Float | None = Field(None, description="null: as the option of that name")
    s_churn: Float | None = Field(None, description="null: as the option of that name")
    s_tmax: Float | None = Field(None, description="null: as the option of that name; 0: infinity")
    s_tmin: Float | None = Field(None, description="null: as the option of that name")
    s_noise: Float | None = Field(None, description="null: as the option of that name")
    override_settings: Object | None = Field(
        None,
        description="Options for this request only",
        examples=[{"sd_model_checkpoint": "v1-5-pruned-emaonly", "CLIP_stop_at_last_layers": 2}],
    )
    override_settings_restore_afterwards: Bool | None = Field(
        True, description="false: the overrides stay in force for later requests"
    )
    refiner_checkpoint: Str | None = Field(None, description="Checkpoint that ends the sampling")
    refiner_switch_at: Float | None = Field(None, description="Share of the steps before it")
    disable_extra_networks: Bool | None = Field(
        False, description="Take <lora:…> and the like out of the prompt without applying them"
    )
    firstpass_image: Str | None = Field(
        None, description="Picture of width x height that stands for the first pass of hires fix"
    )
    comments: Object | None = Field(None, description="No effect")


class HiresFields(_Request):
    """txt2img's second pass."""

    enable_hr: Bool | None = Field(False, description="Draw small, enlarge, draw again")
    firstphase_width: Int | None = Field(0, description="First pass' width, when not 0")
    firstphase_height: Int | None = Field(0, description="First pass' height, when not 0")
    hr_scale: Float | None = Field(2.0, description="Factor, when both hr_resize are 0")
    hr_upscaler: Str | None = Field(
        None,
        description="Name from /sdapi/v1/upscalers or latent-upscale-modes; null: Latent",
        examples=["Latent"],
    )
    hr_second_pass_steps: Int | None = Field(0, description="0: as many as in the first pass")
    hr_resize_x: Int | None = Field(0, description="Target width; 0: from the height or the scale")
    hr_resize_y: Int | None = Field(0, description="Target height, likewise")
    hr_checkpoint_name: Str | None = Field(None, description="Checkpoint of the second pass")
    hr_sampler_name: Str | None = Field(None, description="Sampler of the second pass")
    hr_scheduler: Str | None = Field(None, description="Scheduler of the second pass")
    hr_prompt: Str | None = Field("", description='"": as the prompt')
    hr_negative_prompt: Str | None = Field("", description='"": as the negative prompt')


class InitImageFields(_Request):
    """img2img's input pictures and mask."""

    init_images: list[Any] | None = Field(
        None,
        description="Pictures as base64, data: URI or URL",
        examples=[[PICTURE]],
    )
    resize_mode: Int | None = Field(
        0, description="0 stretch, 1 crop and resize, 2 resize and fill, 3 enlarge the latent"
    )
    image_cfg_scale: Float | None = Field(None, description="instruct-pix2pix checkpoints only")
    mask: Str | None = Field(None, description="Picture; white is drawn anew")
    mask_blur_x: Int | None = Field(4, description="Blur of the mask, pixels")
    mask_blur_y: Int | None = Field(4, description="Blur of the mask, pixels")
    mask_blur: Int | None = Field(None, description="Both of them")
    mask_round: Bool | None = Field(True, description="Make the mask black and white")
    inpainting_fill: Int | None = Field(
        0,
        description="What is under the mask: 0 fill, 1 original, 2 latent noise, 3 latent nothing",
    )
    inpaint_full_res: Bool | None = Field(True, description="Draw only the masked region, enlarged")
    inpaint_full_res_padding: Int | None = Field(0, description="Pixels around that region")
    inpainting_mask_invert: Int | None = Field(0, description="1: draw what is not masked")
    initial_noise_multiplier: Float | None = Field(None, description="null: as the option")
    latent_mask: Str | None = Field(None, description="Declared by the webui, no effect")


class TaskFields(_Request):
    """Names under which the request runs."""

    force_task_id: Str | None = Field(None, description="Task id for progress and cancellation")
    sampler_index: Str = Field("Euler", description="Old name of sampler_name")


class DeliveryFields(_Request):
    """Scripts, and what comes back."""

    script_name: Str | None = Field(None, description="Title of a selectable script")
    script_args: list[Any] = Field([], description="Its arguments, by position")
    send_images: Bool = Field(True, description="false: answer without pictures")
    save_images: Bool = Field(False, description="Also write the pictures to the output folders")
    alwayson_scripts: Object = Field(
        {},
        description='Always-on scripts, {"name": {"args": […]}}, and the EAS keys: id_task, uid, '
        "save_dir, image_link, sd_model_checkpoint, sd_vae",
        examples=[{"id_task": "14837"}],
    )
    infotext: Str | None = Field(
        None, description="Generation parameters as in a picture; fields sent here win over them"
    )


class Txt2ImgRequest(DeliveryFields, TaskFields, HiresFields, SamplingFields):
    """`POST /sdapi/v1/txt2img`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "prompt": "a photo of a cat",
                    "negative_prompt": "blurry",
                    "steps": 20,
                    "width": 512,
                    "height": 512,
                    "sampler_name": "Euler a",
                    "seed": 1234,
                }
            ]
        }
    )


class _Img2ImgTaskFields(TaskFields):
    include_init_images: Bool = Field(
        False, description="Keep init_images and mask in the echoed parameters"
    )


class Img2ImgRequest(DeliveryFields, _Img2ImgTaskFields, InitImageFields, SamplingFields):
    """`POST /sdapi/v1/img2img`."""

    # Narrower than inherited; only an assignment through the parent could notice, and none is made.
    denoising_strength: Float = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        0.75, description="0 keeps the picture, 1 ignores it; not nullable here"
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "prompt": "an oil painting of a cat",
                    "init_images": [PICTURE],
                    "width": 256,
                    "height": 256,
                    "denoising_strength": 0.6,
                    "steps": 20,
                }
            ]
        }
    )


class GenerationResponse(BaseModel):
    """What both answer."""

    images: list[str] = Field(
        description="Pictures in base64 without prefix: the grid, if any, comes first"
    )
    parameters: dict[str, Any] = Field(description="The request, with defaults filled in")
    info: str = Field(description="JSON text: seeds, sizes, infotexts, the checkpoint used")
    warnings: list[str] | None = Field(
        None, description="What was left out, such as a missing LoRA; absent when empty"
    )
