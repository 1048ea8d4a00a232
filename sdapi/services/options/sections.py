"""The webui's settings page as far as flags speak of it: its sections, and what may be frozen.

Options are listed section by section, so each section is told by its first option.
"""

from collections.abc import Mapping
from functools import cache

from sdapi.options import option_specs

#: first option of a section -> name of the section; `HIDDEN` ones no request can change
_FIRST = {
    "samples_save": "saving-images",
    "outdir_samples": "saving-paths",
    "save_to_dirs": "saving-to-dirs",
    "ESRGAN_tile": "upscaling",
    "face_restoration": "face-restoration",
    "auto_launch_browser": "system",
    "profiling_explanation": "profiler",
    "api_enable_requests": "API",
    "unload_models_when_training": "training",
    "sd_model_checkpoint": "sd",
    "sdxl_crop_top": "sdxl",
    "sd3_enable_t5": "sd3",
    "sd_vae_explanation": "vae",
    "inpainting_mask_weight": "img2img",
    "cross_attention_optimization": "optimizations",
    "auto_backcompat": "compatibility",
    "interrogate_keep_models_in_memory": "interrogate",
    "extra_networks_show_hidden_directories": "extra_networks",
    "keyedit_precision_attention": "ui_prompt_editing",
    "return_grid": "ui_gallery",
    "compact_prompt_box": "ui_alternatives",
    "localization": "ui",
    "infotext_explanation": "infotext",
    "show_progressbar": "ui",
    "hide_samplers": "sampler-params",
    "postprocessing_enable_in_main_ui": "postprocessing",
    "disabled_extensions": "hidden",
    "sd_lora": "extra_networks",
    "canvas_hotkey_zoom": "canvas_hotkey",
    "settings_in_ui": "settings_in_ui",
    "enable_prompt_comments": "sd",
    "ldsr_steps": "upscaling",
    "hypertile_enable_unet": "hypertile",
    "prompt_attention": "sd",
    "control_net_unit_count": "control_net",
}
HIDDEN = "hidden"
#: what `--hide-ui-dir-config` keeps as it is
FOLDER_OPTIONS = frozenset(
    {
        "samples_filename_pattern",
        "directories_filename_pattern",
        "outdir_samples",
        "outdir_txt2img_samples",
        "outdir_img2img_samples",
        "outdir_extras_samples",
        "outdir_grids",
        "outdir_txt2img_grids",
        "outdir_img2img_grids",
        "outdir_save",
        "outdir_init_images",
    }
)


@cache
def section_of_option() -> Mapping[str, str]:
    """The section of every option."""
    sections: dict[str, str] = {}
    section = ""
    for key in option_specs():
        section = _FIRST.get(key, section)
        sections[key] = section
    return sections
