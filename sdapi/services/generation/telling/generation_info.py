"""What an answer tells about a job: infotexts and the `info` object.

Contract: webui-generation 15, webui-api 7.3.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdapi import __version__, infotext
from sdapi.engine.jobs.job import Job
from sdapi.options import Options
from sdapi.services.catalog.catalog import Checkpoint, VAEFile
from sdapi.services.generation.drafting.hires_request import hires_texts

VERSION = f"sdapi {__version__}"


@dataclass(frozen=True, slots=True)
class GenerationInfo:
    """A finished job with what its infotexts are made of."""

    job: Job
    options: Options
    checkpoint: Checkpoint
    vae: VAEFile | None
    vae_hash: str | None
    styles: tuple[str, ...]
    #: the texts that those put into the prompt
    style_prompts: tuple[str, ...]
    #: infotext keys beyond the fixed ones, in order: what was asked for, then what came up
    extra: dict[str, Any]
    job_timestamp: str
    is_inpainting_model: bool
    #: as the request sent them, for the echo in `info`
    subseed_strength: float
    seed_resize_from_w: int
    seed_resize_from_h: int
    user: str | None = None
    #: an instruct-pix2pix checkpoint
    is_editing_model: bool = False
    #: of the last init image's pixels, where option `save_init_img` asks for it
    init_image_hash: str | None = None

    def infotext(self, index: int) -> str:
        """The infotext of picture `index`; a grid has that of the first."""
        return infotext.build(
            self._fields(index), self.job.prompts[index], self.job.negative_prompts[index]
        )

    def _fields(self, index: int) -> list[tuple[str, object]]:
        """The keys of a picture's infotext in order."""
        named, options = self._named_fields(index), self.options
        extra: dict[str, object] = {**self.extra, **hires_texts(self.job, index)}
        # An extra of the same name replaces the value where it stands.
        fields = [(key, extra.get(key, value)) for key, value in named]
        taken = {key for key, _ in named}
        fields += [(key, value) for key, value in extra.items() if key not in taken]
        fields.append(("Version", VERSION if options.flag("add_version_to_infotext") else None))
        fields.append(("User", self.user if options.flag("add_user_name_to_info") else None))
        return fields

    def _named_fields(self, index: int) -> list[tuple[str, object]]:
        """Those that every infotext may have."""
        job = self.job
        varies = job.subseed_strength != 0
        resize = job.seed_resize_from
        clip_skip, edits = job.options.clip_skip, self.is_editing_model
        shows_ensd = (
            job.options.eta_noise_seed_delta != 0
            and "uses_ensd" in job.sampler.options
            and (job.options.eta_ancestral if job.eta is None else job.eta) != 0
        )
        return [
            ("Steps", job.steps),
            ("Sampler", job.sampler.name),
            ("Schedule type", job.scheduler),
            ("CFG scale", job.cfg_scale),
            ("Image CFG scale", job.init.image_cfg_scale if edits and job.init else None),
            ("Seed", job.seeds[index]),
            ("Face restoration", job.faces.name if job.faces else None),
            ("Size", f"{job.width}x{job.height}"),
            *self._model_fields(),
            ("Variation seed", job.subseeds[index] if varies else None),
            ("Variation seed strength", job.subseed_strength if varies else None),
            ("Seed resize from", f"{resize[0]}x{resize[1]}" if resize else None),
            ("Denoising strength", self._denoising_strength),
            (
                "Conditional mask weight",
                job.options.inpainting_mask_weight if self.is_inpainting_model else None,
            ),
            ("Clip skip", clip_skip if clip_skip > 1 else None),
            ("ENSD", job.options.eta_noise_seed_delta if shows_ensd else None),
            ("Token merging ratio", job.token_merging_ratio or None),
            ("Token merging ratio hr", (job.hires and job.token_merging_ratio_hr) or None),
            ("Init image hash", self.init_image_hash),
            ("RNG", job.options.randn_source if job.options.randn_source != "GPU" else None),
            ("Prompt attention", _unless(job.options.prompt_attention, "webui")),
            ("Tiling", True if job.tiling else None),
        ]

    def _model_fields(self) -> list[tuple[str, object]]:
        """Those of the models, as far as the options want them."""
        told = (
            ("Model hash", self.model_hash, "add_model_hash_to_info"),
            ("Model", self._model_name, "add_model_name_to_info"),
            ("VAE hash", self.vae_hash, "add_vae_hash_to_info"),
            ("VAE", self._vae_name, "add_vae_name_to_info"),
        )
        flag = self.options.flag
        return [(key, value if flag(option) else None) for key, value, option in told]

    @property
    def _denoising_strength(self) -> float | None:
        second = self.job.init or self.job.hires
        return second.denoising_strength if second else None

    @property
    def model_hash(self) -> str | None:
        return self.checkpoint.shorthash

    @property
    def _model_name(self) -> str:
        return self.checkpoint.name_for_extra

    @property
    def _vae_name(self) -> str | None:
        return self.vae.name if self.vae else None

    def to_json(
        self,
        infotexts: Sequence[str | None],
        index_of_first_image: int,
        changes: Mapping[str, Any] | None = None,
    ) -> str:
        """The `info` of an answer: JSON in a string; a script says what differs for it."""
        content = self._drawn() | {
            "seed_resize_from_w": self.seed_resize_from_w,
            "seed_resize_from_h": self.seed_resize_from_h,
            "denoising_strength": self._denoising_strength,
            "extra_generation_params": self.extra,
            "index_of_first_image": index_of_first_image,
            "infotexts": list(infotexts),
            "styles": list(self.styles),
            "job_timestamp": self.job_timestamp,
            "clip_skip": self.job.options.clip_skip,
            "is_using_inpainting_conditioning": self.is_inpainting_model,
            "version": VERSION,
        }
        return json.dumps(content | dict(changes or {}))

    def _drawn(self) -> dict[str, Any]:
        """The first entries of `info`: what was drawn with which models."""
        job = self.job
        return {
            "prompt": job.prompts[0],
            "all_prompts": list(job.prompts),
            "negative_prompt": job.negative_prompts[0],
            "all_negative_prompts": list(job.negative_prompts),
            "seed": job.seeds[0],
            "all_seeds": list(job.seeds),
            "subseed": job.subseeds[0],
            "all_subseeds": list(job.subseeds),
            "subseed_strength": self.subseed_strength,
            "width": job.width,
            "height": job.height,
            "sampler_name": job.sampler.name,
            "cfg_scale": job.cfg_scale,
            "steps": job.steps,
            "batch_size": job.batch_size,
            "restore_faces": job.faces is not None,
            "face_restoration_model": job.faces.name if job.faces else None,
            "sd_model_name": self._model_name,
            "sd_model_hash": self.model_hash,
            "sd_vae_name": self._vae_name,
            "sd_vae_hash": self.vae_hash,
        }


def _unless(value: str, usual: str) -> str | None:
    return None if value == usual else value
