"""A generation job: everything the engine needs to draw, resolved and immutable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL.Image import Image

from sdapi.engine.faces.restorer import FaceRestoration
from sdapi.engine.jobs.init_images import InitImages
from sdapi.engine.jobs.stages import Stages
from sdapi.engine.latents.latent_modes import LatentMode
from sdapi.engine.networks.selection import NetworkFiles
from sdapi.engine.sampling.sampler_names import SamplerInfo
from sdapi.engine.upscaling.upscaler import Upscaler
from sdapi.engine.weights.model_file import ModelFile

__all__ = [
    "BEFORE_FACES",
    "BEFORE_HIRES",
    "GeneratedImage",
    "HiresPass",
    "InitImages",
    "Job",
    "ModelFile",
    "Refiner",
    "Result",
    "SamplingOptions",
    "UniPCOptions",
]

#: the suffix under which the first pass of hires fix is saved
BEFORE_HIRES = "before-highres-fix"
#: and pictures before their faces are restored
BEFORE_FACES = "before-face-restoration"


@dataclass(frozen=True, slots=True)
class HiresPass:
    """The second pass of txt2img (hires fix): what differs from the first. Lists as in the job."""

    upscaler: LatentMode | Upscaler
    #: picture size (width, height) that the first pass is enlarged to
    size: tuple[int, int]
    denoising_strength: float
    steps: int
    sampler: SamplerInfo
    scheduler: str
    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    checkpoint: ModelFile
    vae: ModelFile | None = None
    #: latent cells (x, y) that stick out over the picture asked for, cut off on both sides
    surplus: tuple[int, int] = (0, 0)
    #: encode the prompts with the networks of the first pass's prompt
    uses_first_networks: bool = False
    #: stands for the first pass, RGB
    first_picture: Image | None = None
    #: keep the first pass's pictures beside the final ones
    keeps_first: bool = False


@dataclass(frozen=True, slots=True)
class Refiner:
    """A checkpoint that takes over while a picture is being drawn."""

    checkpoint: ModelFile
    #: what infotext calls it
    title: str
    vae: ModelFile | None = None
    #: how much must be drawn, 0 to 1; None: nothing
    switch_at: float | None = None
    #: of a job with hires fix (option `hires_fix_refiner_pass`)
    in_first_pass: bool = False
    in_second_pass: bool = True


@dataclass(frozen=True, slots=True)
class UniPCOptions:
    """The server's `uni_pc_*` options."""

    variant: str = "bh1"
    skip_type: str = "time_uniform"
    order: int = 3
    lower_order_final: bool = True


@dataclass(frozen=True, slots=True)
class TileOptions:
    """How Hypertile cuts the self-attention of a model."""

    enabled: bool = False
    max_depth: int = 3
    #: pixels
    max_tile: int = 256
    swap_size: int = 3


@dataclass(frozen=True, slots=True)
class Hypertile:
    """The options `hypertile_*`."""

    unet: TileOptions = field(default_factory=TileOptions)
    #: cut the second pass of hires fix although the first is not
    unet_second_pass: bool = False
    vae: TileOptions = field(default_factory=TileOptions)


@dataclass(frozen=True, slots=True)
class Churn:
    """Noise that samplers add on their way, and where (Karras et al. 2022, algorithm 2)."""

    churn: float = 0.0
    tmin: float = 0.0
    tmax: float = float("inf")
    noise: float = 1.0


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """Options of the server that act on sampling, resolved for one job.

    0 means the model's or schedule's own.
    """

    randn_source: str = "GPU"
    eta_noise_seed_delta: int = 0
    eta_ancestral: float = 1.0
    eta_ddim: float = 0.0
    sigma_min: float = 0.0
    sigma_max: float = 0.0
    rho: float = 0.0
    use_old_karras_range: bool = False
    always_discard_next_to_last_sigma: bool = False
    sgm_noise_multiplier: bool = False
    enable_quantization: bool = False
    no_batch_determinism: bool = False
    beta_alpha: float = 0.6
    beta_beta: float = 0.6
    img2img_fix_steps: bool = False
    img2img_extra_noise: float = 0.0
    #: Default, or Zero Terminal SNR
    noise_schedule: str = "Default"
    use_downcasted_alpha_bar: bool = False
    #: `s_churn` and its kin; those not at their default win over the job's
    churn: Churn = field(default_factory=Churn)
    batch_cond_uncond: bool = True
    pad_cond_uncond: bool = False
    pad_cond_uncond_v0: bool = False
    s_min_uncond_all: bool = False
    skip_early_cond: float = 0.0
    use_old_scheduling: bool = False
    clip_skip: int = 1
    emphasis: str = "Original"
    prompt_attention: str = "webui"
    comma_backtrack: int = 20
    sdxl_clip_l_skip: bool = False
    #: (top, left)
    sdxl_crop: tuple[int, int] = (0, 0)
    #: Full, or TAESD
    vae_encode_method: str = "Full"
    vae_decode_method: str = "Full"
    auto_vae_precision: bool = True
    auto_vae_precision_bfloat16: bool = False
    #: a refiner's share is one of denoiser calls in place of noise levels
    refiner_counts_calls: bool = False
    upcast_attn: bool = False
    #: how much of the masked part inpainting checkpoints may not see, 1 is all of it
    inpainting_mask_weight: float = 1.0
    unipc: UniPCOptions = field(default_factory=UniPCOptions)


@dataclass(frozen=True, slots=True)
class Job:
    """One request, ready to run. Lists have an entry for each picture; sizes are pixels.

    Entries beyond `n_iter * batch_size` are told and not drawn (contract: webui-generation 10.5).
    """

    id: str
    #: styles merged, comments removed, extra-network tags still in place
    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    subseeds: tuple[int, ...]
    checkpoint: ModelFile
    sampler: SamplerInfo
    #: the label asked for, `Automatic` included
    scheduler: str
    steps: int
    cfg_scale: float
    width: int
    height: int
    batch_size: int = 1
    n_iter: int = 1
    subseed_strength: float = 0.0
    #: picture size (width, height) the seeds were chosen for
    seed_resize_from: tuple[int, int] | None = None
    #: None takes the option of the sampler's kind
    eta: float | None = None
    churn: Churn = field(default_factory=Churn)
    #: below this noise level the negative prompt is evaluated at every other call only
    s_min_uncond: float = 0.0
    #: pictures whose edges fit each other
    tiling: bool = False
    #: share of the tokens merged in self-attention; of hires fix's second pass
    token_merging_ratio: float = 0.0
    token_merging_ratio_hr: float = 0.0
    hypertile: Hypertile = field(default_factory=Hypertile)
    vae: ModelFile | None = None
    init: InitImages | None = None
    hires: HiresPass | None = None
    refiner: Refiner | None = None
    options: SamplingOptions = field(default_factory=SamplingOptions)
    networks: NetworkFiles = field(default_factory=NetworkFiles)
    #: what becomes of the faces in the pictures, and whether those before are kept
    faces: FaceRestoration | None = None
    keeps_faces: bool = False
    #: what scripts do while it is drawn, in order
    stages: tuple[Stages, ...] = ()

    @property
    def picture_count(self) -> int:
        """How many pictures it draws; the last batch may have fewer than the others."""
        return min(len(self.prompts), self.n_iter * self.batch_size)

    @property
    def latent_size(self) -> tuple[int, int]:
        """(height, width) in latent cells; what does not fill one is cut off."""
        return self.height // 8, self.width // 8


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """A finished picture and its place among the job's prompts and seeds."""

    index: int
    image: Image
    #: what soft inpainting covers of the init picture: grey, a pixel for each latent cell
    cover: Image | None = None
    #: other states of the picture by their file suffix, such as "before-color-correction"
    variants: Mapping[str, Image] = field(default_factory=dict[str, Image])


@dataclass(frozen=True, slots=True)
class Result:
    """What a job made; fewer images than asked for when it was interrupted."""

    images: tuple[GeneratedImage, ...]
    #: infotext keys found out while drawing, in order
    extra: dict[str, Any]
    #: what could not be used, though the pictures were made
    warnings: tuple[str, ...] = ()
    is_inpainting_model: bool = False
    #: an instruct-pix2pix checkpoint
    is_editing_model: bool = False
    interrupted: bool = False
    #: what scripts add to the end of the answer, without infotexts
    extra_images: tuple[Image, ...] = ()
    #: maps that ControlNet units detected, after those
    detected_maps: tuple[Image, ...] = ()
    load_s: float = 0.0
    sample_s: float = 0.0
    decode_s: float = 0.0
