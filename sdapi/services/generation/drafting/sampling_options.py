"""The server's options as the engine knows them, checked before a job is made of them."""

from dataclasses import replace

from sdapi.engine.jobs.job import (
    Churn,
    Hypertile,
    SamplingOptions,
    TileOptions,
    UniPCOptions,
)
from sdapi.errors import BadRequest, near_names
from sdapi.options import Options
from sdapi.schemas.generation import Img2ImgRequest, Txt2ImgRequest

_RANDN_SOURCES = ("GPU", "CPU", "NV")
_UNIPC_VARIANTS = ("bh1", "bh2", "vary_coeff")
_UNIPC_SKIP_TYPES = ("time_uniform", "time_quadratic", "logSNR")
_NOISE_SCHEDULES = ("Default", "Zero Terminal SNR")
_VAE_METHODS = ("Full", "TAESD")
_PROMPT_ATTENTIONS = ("webui", "compel")
_EMPHASIS_MODES = ("Original", "No norm", "Ignore", "None")
#: layers of the largest text encoder that clip skip acts on
_MAX_CLIP_SKIP = 12
GenerationRequest = Txt2ImgRequest | Img2ImgRequest
_LARGEST_DELTA = 1 << 63
_MAX_TILE_DEPTH, _MAX_TILE, _MAX_SWAP = 3, 512, 64


def sampling_options(options: Options) -> SamplingOptions:
    """The options that the engine knows, checked.

    Raises `BadRequest` for an unknown name.
    """
    return replace(
        _noise_options(options),
        batch_cond_uncond=options.flag("batch_cond_uncond"),
        pad_cond_uncond=options.flag("pad_cond_uncond"),
        pad_cond_uncond_v0=options.flag("pad_cond_uncond_v0"),
        s_min_uncond_all=options.flag("s_min_uncond_all"),
        skip_early_cond=options.number("skip_early_cond"),
        refiner_counts_calls=options.flag("refiner_switch_by_sample_steps"),
        upcast_attn=options.flag("upcast_attn"),
        inpainting_mask_weight=_share(options, "inpainting_mask_weight"),
        use_old_scheduling=options.flag("use_old_scheduling"),
        clip_skip=_within(options, "CLIP_stop_at_last_layers", _MAX_CLIP_SKIP),
        emphasis=_choice(options, "emphasis", _EMPHASIS_MODES),
        prompt_attention=_choice(options, "prompt_attention", _PROMPT_ATTENTIONS),
        comma_backtrack=options.integer("comma_padding_backtrack"),
        sdxl_clip_l_skip=options.flag("sdxl_clip_l_skip"),
        sdxl_crop=(options.integer("sdxl_crop_top"), options.integer("sdxl_crop_left")),
        vae_encode_method=_choice(options, "sd_vae_encode_method", _VAE_METHODS),
        vae_decode_method=_choice(options, "sd_vae_decode_method", _VAE_METHODS),
        auto_vae_precision=options.flag("auto_vae_precision"),
        auto_vae_precision_bfloat16=options.flag("auto_vae_precision_bfloat16"),
    )


def _noise_options(options: Options) -> SamplingOptions:
    """Those of noise, its levels and samplers; the others at their defaults."""
    return SamplingOptions(
        randn_source=_choice(options, "randn_source", _RANDN_SOURCES),
        eta_noise_seed_delta=_within(options, "eta_noise_seed_delta", _LARGEST_DELTA),
        eta_ancestral=options.number("eta_ancestral"),
        eta_ddim=options.number("eta_ddim"),
        sigma_min=_not_negative(options, "sigma_min"),
        sigma_max=_not_negative(options, "sigma_max"),
        rho=options.number("rho"),
        use_old_karras_range=options.flag("use_old_karras_scheduler_sigmas"),
        always_discard_next_to_last_sigma=options.flag("always_discard_next_to_last_sigma"),
        sgm_noise_multiplier=options.flag("sgm_noise_multiplier"),
        enable_quantization=options.flag("enable_quantization"),
        no_batch_determinism=options.flag("no_dpmpp_sde_batch_determinism"),
        beta_alpha=options.number("beta_dist_alpha"),
        beta_beta=options.number("beta_dist_beta"),
        img2img_fix_steps=options.flag("img2img_fix_steps"),
        img2img_extra_noise=options.number("img2img_extra_noise"),
        noise_schedule=_choice(options, "sd_noise_schedule", _NOISE_SCHEDULES),
        use_downcasted_alpha_bar=options.flag("use_downcasted_alpha_bar"),
        churn=churn(options),
        unipc=UniPCOptions(
            variant=_choice(options, "uni_pc_variant", _UNIPC_VARIANTS),
            skip_type=_choice(options, "uni_pc_skip_type", _UNIPC_SKIP_TYPES),
            order=options.integer("uni_pc_order"),
            lower_order_final=options.flag("uni_pc_lower_order_final"),
        ),
    )


def hypertile(options: Options) -> Hypertile:
    """The options `hypertile_*`."""
    return Hypertile(
        unet=_tile_options(options, "unet"),
        unet_second_pass=options.flag("hypertile_enable_unet_secondpass"),
        vae=_tile_options(options, "vae"),
    )


def _tile_options(options: Options, part: str) -> TileOptions:
    return TileOptions(
        enabled=options.flag(f"hypertile_enable_{part}"),
        max_depth=_within(options, f"hypertile_max_depth_{part}", _MAX_TILE_DEPTH),
        max_tile=_within(options, f"hypertile_max_tile_{part}", _MAX_TILE),
        swap_size=_within(options, f"hypertile_swap_size_{part}", _MAX_SWAP),
    )


def hypertile_keys(wanted: Hypertile) -> dict[str, object]:
    """What the infotext tells of Hypertile; null where a setting is at its default."""
    keys: dict[str, object] = {}
    if wanted.unet.enabled or wanted.unet_second_pass:
        name = "Hypertile U-Net" if wanted.unet.enabled else "Hypertile U-Net second pass"
        keys |= {name: True} | _tile_keys("Hypertile U-Net", wanted.unet, TileOptions())
    if wanted.vae.enabled:
        keys |= {"Hypertile VAE": True}
        keys |= _tile_keys("Hypertile VAE", wanted.vae, TileOptions(max_tile=128))
    return keys


def _tile_keys(name: str, value: TileOptions, default: TileOptions) -> dict[str, object]:
    pairs = (
        ("max depth", value.max_depth, default.max_depth),
        ("max tile size", value.max_tile, default.max_tile),
        ("swap size", value.swap_size, default.swap_size),
    )
    return {f"{name} {key}": None if used == usual else used for key, used, usual in pairs}


def token_merging_ratio(options: Options, request: GenerationRequest) -> float:
    """The share of tokens merged in the first pass; img2img has an option of its own."""
    plain = _share(options, "token_merging_ratio")
    if isinstance(request, Txt2ImgRequest):
        return plain
    asked = (request.override_settings or {}).get("token_merging_ratio")
    return (plain if asked else 0.0) or _share(options, "token_merging_ratio_img2img") or plain


def token_merging_ratio_hr(options: Options) -> float:
    """The share of tokens merged in the second pass of hires fix."""
    return _share(options, "token_merging_ratio_hr") or _share(options, "token_merging_ratio")


def _share(options: Options, key: str) -> float:
    value = options.number(key)
    if not 0 <= value <= 1:
        raise BadRequest(f"{key}: {value} is no share; it lies between 0 and 1")
    return value


def churn(options: Options, request: GenerationRequest | None = None) -> Churn:
    """The churn settings of a request, else of the options; those of the options without one."""
    return Churn(
        or_option(request and request.s_churn, options, "s_churn"),
        or_option(request and request.s_tmin, options, "s_tmin"),
        or_option(request and request.s_tmax, options, "s_tmax") or float("inf"),
        or_option(request and request.s_noise, options, "s_noise"),
    )


def or_option(value: float | None, options: Options, key: str) -> float:
    return options.number(key) if value is None else value


def _choice(options: Options, key: str, known: tuple[str, ...]) -> str:
    value = options.text(key)
    if value not in known:
        raise BadRequest(f"{key}: {value!r} is unknown; there are {near_names(value, known)}")
    return value


def _within(options: Options, key: str, limit: int) -> int:
    value = options.integer(key)
    if abs(value) > limit:
        raise BadRequest(f"{key}: {value} is out of range; at most {limit}")
    return value


def _not_negative(options: Options, key: str) -> float:
    value = options.number(key)
    if value < 0:
        raise BadRequest(f"{key}: {value} is negative; a noise level is 0 or more")
    return value
