"""The names that network files give to layers, in all their spellings, as one.

kohya's programs join the path of a module with underscores (`lora_unet_mid_block_…`), diffusers and
peft keep its dots (`unet.mid_block.….lora_A.weight`). Either is split into the path, with
underscores, and the part of the layer, under kohya's name.
"""

import re

#: the first of these that stands as a whole step ends the path of the module
_PART = re.compile(
    r"\.(?=(?:lora_(?:A|B|up|down|mid|linear_layer|magnitude_vector)|lora|hada_\w+|lokr_\w+|oft_\w+"
    r"|rescale|diff|diff_b|w_norm|b_norm|on_input|a1|a2|b1|b2|alpha|scale|dora_scale)(?:\.|$))"
)
#: diffusers before peft kept the attention's layers beside the module: `attn1.processor.to_q_lora`
_PROCESSOR = re.compile(r"^(.+?)(?:\.processor)?\.to_(q|k|v|out)_lora\.(down|up)\.weight$")
_WRAPPERS = ("base_model.model.",)
_PEFT = {"A": "lora_down.weight", "B": "lora_up.weight"}
_SIDE = re.compile(r"^(?:lora|lora_linear_layer)\.(down|up)\.weight$")
_PEFT_SIDE = re.compile(r"^lora_([AB])(?:\.\w+)*$")


def split_key(key: str) -> tuple[str, str]:
    """The module's path, joined with underscores, and the part: `lora_up.weight`, `alpha`, …"""
    for wrapper in _WRAPPERS:
        key = key.removeprefix(wrapper)
    if match := _PROCESSOR.match(key):
        return _processor_path(match[1], match[2]), f"lora_{match[3]}.weight"
    path, _, part = key.partition(".")
    if pieces := _PART.split(key, maxsplit=1)[1:]:
        path, part = key[: -len(pieces[0]) - 1], pieces[0]
    return path.replace(".", "_"), _part_name(part)


def _processor_path(module: str, letter: str) -> str:
    if ".self_attn" in module:
        return f"{module}.{'out' if letter == 'out' else letter}_proj".replace(".", "_")
    return f"{module}.to_{'out.0' if letter == 'out' else letter}".replace(".", "_")


def _part_name(part: str) -> str:
    if match := _PEFT_SIDE.match(part):
        return _PEFT[match[1]]
    if match := _SIDE.match(part):
        return f"lora_{match[1]}.weight"
    return "lora_magnitude_vector" if part.startswith("lora_magnitude_vector") else part
