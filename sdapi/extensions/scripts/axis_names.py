"""The axes of X/Y/Z plot by name; their places are what requests send (contract: scripts 8.1)."""

from sdapi.services.scripts.script import Kind

#: (name, txt2img has it, img2img has it)
_AXES = (
    ("Nothing", True, True),
    ("Seed", True, True),
    ("Var. seed", True, True),
    ("Var. strength", True, True),
    ("Steps", True, True),
    ("Hires steps", True, False),
    ("CFG Scale", True, True),
    ("Image CFG Scale", False, True),
    ("Prompt S/R", True, True),
    ("Prompt order", True, True),
    ("Sampler", True, True),
    ("Hires sampler", True, False),
    ("Checkpoint name", True, True),
    ("Negative Guidance minimum sigma", True, True),
    ("Sigma Churn", True, True),
    ("Sigma min", True, True),
    ("Sigma max", True, True),
    ("Sigma noise", True, True),
    ("Schedule type", True, True),
    ("Schedule min sigma", True, True),
    ("Schedule max sigma", True, True),
    ("Schedule rho", True, True),
    ("Beta schedule alpha", True, True),
    ("Beta schedule beta", True, True),
    ("Eta", True, True),
    ("Clip skip", True, True),
    ("Denoising", True, True),
    ("Initial noise multiplier", True, True),
    ("Extra noise", True, True),
    ("Hires upscaler", True, False),
    ("Cond. Image Mask Weight", False, True),
    ("VAE", True, True),
    ("Styles", True, True),
    ("UniPC Order", True, True),
    ("Face restore", True, True),
    ("Token merging ratio", True, True),
    ("Token merging ratio high-res", True, True),
    ("Always discard next-to-last sigma", True, True),
    ("SGM noise multiplier", True, True),
    ("Refiner checkpoint", True, True),
    ("Refiner switch at", True, True),
    ("RNG source", True, True),
    ("FP8 mode", True, True),
    ("Size", True, True),
)
#: there with the page only
_HYPERTILE_AXES = (
    "[Hypertile] Unet First pass Enabled",
    "[Hypertile] Unet Second pass Enabled",
    "[Hypertile] Unet Max Depth",
    "[Hypertile] Unet Max Tile Size",
    "[Hypertile] Unet Swap Size",
    "[Hypertile] VAE Enabled",
    "[Hypertile] VAE Max Depth",
    "[Hypertile] VAE Max Tile Size",
    "[Hypertile] VAE Swap Size",
)


def axis_names(kind: Kind, *, has_page: bool) -> list[str]:
    """The axes that requests of a kind can name by their place."""
    own = [name for name, txt2img, img2img in _AXES if (txt2img if kind == "txt2img" else img2img)]
    return [*own, *_HYPERTILE_AXES] if has_page else own
