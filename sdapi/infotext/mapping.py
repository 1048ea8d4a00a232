"""What an infotext's fields mean for a request: its fields, and the options it overrides."""

from collections.abc import Callable, Mapping
from typing import Literal

from sdapi.errors import BadRequest
from sdapi.options import Options

Kind = Literal["txt2img", "img2img"]

#: Sampler text ("DPM++ 2M Karras") and scheduler label to the sampler's name and the scheduler's
#: label.
SamplerResolver = Callable[[str, str], tuple[str, str]]

_SAME_SAMPLER = "Use same sampler"
_SAME_SCHEDULER = "Use same scheduler"

# Fields that both kinds of request take. "Seed resize from" is written width x height and read
# back with the two exchanged: the reference does so, and results are to be the same.
_SAMPLING: tuple[tuple[str, str, type], ...] = (
    ("Steps", "steps", int),
    ("Seed", "seed", int),
    ("Variation seed", "subseed", int),
    ("Variation seed strength", "subseed_strength", float),
    ("Seed resize from-1", "seed_resize_from_h", int),
    ("Seed resize from-2", "seed_resize_from_w", int),
    ("Refiner", "refiner_checkpoint", str),
    ("Refiner switch at", "refiner_switch_at", float),
)

# Fields that only txt2img takes: img2img keeps its own prompt, size, CFG scale and strength.
_TXT2IMG: tuple[tuple[str, str, type], ...] = (
    ("Prompt", "prompt", str),
    ("Negative prompt", "negative_prompt", str),
    ("CFG scale", "cfg_scale", float),
    ("Size-1", "width", int),
    ("Size-2", "height", int),
    ("Batch size", "batch_size", int),
    ("Denoising strength", "denoising_strength", float),
    ("Hires upscale", "hr_scale", float),
    ("Hires upscaler", "hr_upscaler", str),
    ("Hires steps", "hr_second_pass_steps", int),
    ("Hires resize-1", "hr_resize_x", int),
    ("Hires resize-2", "hr_resize_y", int),
    ("Hires checkpoint", "hr_checkpoint_name", str),
    ("Hires prompt", "hr_prompt", str),
    ("Hires negative prompt", "hr_negative_prompt", str),
)

_OPTIONS: tuple[tuple[str, str], ...] = (
    ("Model hash", "sd_model_checkpoint"),
    ("VAE", "sd_vae"),
    ("Clip skip", "CLIP_stop_at_last_layers"),
    ("RNG", "randn_source"),
    ("ENSD", "eta_noise_seed_delta"),
    ("Emphasis", "emphasis"),
    ("Tiling", "tiling"),
    ("Prompt attention", "prompt_attention"),
    ("Eta", "eta_ancestral"),
    ("Eta DDIM", "eta_ddim"),
    ("Sigma churn", "s_churn"),
    ("Sigma tmin", "s_tmin"),
    ("Sigma tmax", "s_tmax"),
    ("Sigma noise", "s_noise"),
    ("Schedule min sigma", "sigma_min"),
    ("Schedule max sigma", "sigma_max"),
    ("Schedule rho", "rho"),
    ("Discard penultimate sigma", "always_discard_next_to_last_sigma"),
    ("SGM noise multiplier", "sgm_noise_multiplier"),
    ("UniPC variant", "uni_pc_variant"),
    ("UniPC skip type", "uni_pc_skip_type"),
    ("UniPC order", "uni_pc_order"),
    ("UniPC lower order final", "uni_pc_lower_order_final"),
    ("Noise Schedule", "sd_noise_schedule"),
    ("Skip Early CFG", "skip_early_cond"),
    ("Beta scheduler alpha", "beta_dist_alpha"),
    ("Beta scheduler beta", "beta_dist_beta"),
    ("Face restoration", "face_restoration"),
    ("Conditional mask weight", "inpainting_mask_weight"),
    ("Noise multiplier", "initial_noise_multiplier"),
    ("Extra noise", "img2img_extra_noise"),
    ("NGMS", "s_min_uncond"),
    ("NGMS all steps", "s_min_uncond_all"),
    ("Token merging ratio", "token_merging_ratio"),
    ("Token merging ratio hr", "token_merging_ratio_hr"),
    ("Pad conds", "pad_cond_uncond"),
    ("Pad conds v0", "pad_cond_uncond_v0"),
    ("FP8 weight", "fp8_storage"),
    ("Cache FP16 weight for LoRA", "cache_fp16_weight"),
    ("VAE Encoder", "sd_vae_encode_method"),
    ("VAE Decoder", "sd_vae_decode_method"),
    ("Old prompt editing timelines", "use_old_scheduling"),
    ("Downcast alphas_cumprod", "use_downcasted_alpha_bar"),
    ("Refiner switch by sampling steps", "refiner_switch_by_sample_steps"),
    ("Hires refiner", "hires_fix_refiner_pass"),
    ("Hypertile U-Net", "hypertile_enable_unet"),
    ("Hypertile U-Net second pass", "hypertile_enable_unet_secondpass"),
    ("Hypertile U-Net max depth", "hypertile_max_depth_unet"),
    ("Hypertile U-Net max tile size", "hypertile_max_tile_unet"),
    ("Hypertile U-Net swap size", "hypertile_swap_size_unet"),
    ("Hypertile VAE", "hypertile_enable_vae"),
    ("Hypertile VAE max depth", "hypertile_max_depth_vae"),
    ("Hypertile VAE max tile size", "hypertile_max_tile_vae"),
    ("Hypertile VAE swap size", "hypertile_swap_size_vae"),
)


def option_overrides(parsed: Mapping[str, object], options: Options) -> dict[str, object]:
    """The options that the infotext asks to be other than they are, for `override_settings`."""
    overrides: dict[str, object] = {}
    for key, option in _OPTIONS:
        if key not in parsed or (key == "Model hash" and options.flag("disable_weights_auto_swap")):
            continue
        value = options.convert(option, parsed[key])
        if value != options[option]:
            overrides[option] = value
    return overrides


def request_fields(
    parsed: Mapping[str, object], kind: Kind, *, resolve_sampler: SamplerResolver | None = None
) -> dict[str, object]:
    """The request fields that the infotext fills where the client sent none.

    With `resolve_sampler` an old combined name ("Euler a Karras") is taken apart; without it the
    name stays as it is, and "Automatic" is not set beside it, so that the generation service can
    still do so.
    """
    fields = _converted(parsed, _SAMPLING) | _samplers(parsed, resolve_sampler)
    if kind == "img2img":
        return fields
    fields |= _converted(parsed, _TXT2IMG)
    fields["enable_hr"] = "Denoising strength" in parsed
    if "Styles array" in parsed:
        fields["styles"] = parsed["Styles array"]
    return fields | _hires_samplers(parsed, resolve_sampler)


def _samplers(parsed: Mapping[str, object], resolve: SamplerResolver | None) -> dict[str, object]:
    sampler, scheduler = parsed.get("Sampler"), str(parsed.get("Schedule type", "Automatic"))
    if sampler is None:
        return {}
    if resolve is not None:
        name, label = resolve(str(sampler), scheduler)
        return {"sampler_name": name, "scheduler": label}
    return {
        "sampler_name": sampler,
        **({} if scheduler == "Automatic" else {"scheduler": scheduler}),
    }


def _hires_samplers(
    parsed: Mapping[str, object], resolve: SamplerResolver | None
) -> dict[str, object]:
    """The hires pass' sampler and scheduler; null is "as in the first pass".

    The literals "Use same sampler" and "Use same scheduler", which the parser adds, are no names:
    they are read as null, where the reference fails on the former.
    """
    sampler = parsed.get("Hires sampler", _SAME_SAMPLER)
    scheduler = parsed.get("Hires schedule type", _SAME_SCHEDULER)
    label = None if scheduler == _SAME_SCHEDULER else str(scheduler)
    if sampler == _SAME_SAMPLER:
        return {"hr_sampler_name": None, "hr_scheduler": label}
    if resolve is None:
        return {"hr_sampler_name": sampler, "hr_scheduler": label}
    wanted = label or str(parsed.get("Schedule type", "Automatic"))
    name, resolved = resolve(str(sampler), wanted)
    return {"hr_sampler_name": name, "hr_scheduler": label if resolved == wanted else resolved}


def _converted(
    parsed: Mapping[str, object], table: tuple[tuple[str, str, type], ...]
) -> dict[str, object]:
    return {field: _convert(key, parsed[key], kind) for key, field, kind in table if key in parsed}


def _convert(key: str, value: object, kind: type) -> object:
    try:
        if kind is int:
            try:
                return int(str(value))
            except ValueError:
                return int(float(str(value)))
        return kind(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRequest(f"infotext: {key} is {value!r}, which is no {kind.__name__}") from error
