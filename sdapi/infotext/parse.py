"""Infotext to fields, as readers of the webui's infotext expect them."""

import re
from typing import Protocol

from sdapi.engine.text.grammar.attention import BREAK, parse_attention
from sdapi.errors import BadRequest
from sdapi.infotext.text import NEGATIVE_MARK, unquote
from sdapi.options import Options

# A key starts with a word character; a value is a quoted text or everything up to the next comma.
# Nothing is read twice, so that a text of megabytes takes no longer than its length.
_KEY = re.compile(r"(\w[\w /-]++)(:\s*+)?")
_QUOTED = re.compile(r'"(?:[^\\"]|\\.)*+"')
_PLAIN = re.compile(r"[^,]*+")
_SIZE = re.compile(r"(\d+)x(\d+)")
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:-(\d+))?")
#: fewer pairs than this make the last line a part of the prompt
_MIN_PAIRS = 3

# What a reader may rely on although the text does not say it. The order is that of the answers.
_DEFAULTS: tuple[tuple[str, object], ...] = (
    ("Hires resize-1", 0),
    ("Hires resize-2", 0),
    ("Hires sampler", "Use same sampler"),
    ("Hires schedule type", "Use same scheduler"),
    ("Hires checkpoint", "Use same checkpoint"),
    ("Hires prompt", ""),
    ("Hires negative prompt", ""),
    ("Mask mode", "Inpaint masked"),
    ("Masked content", "original"),
    ("Inpaint area", "Whole picture"),
    ("Masked area padding", 32),
    ("RNG", "GPU"),
    ("Schedule type", "Automatic"),
    ("Schedule max sigma", 0),
    ("Schedule min sigma", 0),
    ("Schedule rho", 0),
    ("VAE Encoder", "Full"),
    ("VAE Decoder", "Full"),
    ("FP8 weight", "Disable"),
)


class StyleExtractor(Protocol):
    """The styles an infotext's prompts may have been made with."""

    def extract(self, prompt: str, negative: str) -> tuple[list[str], str, str]:
        """The names of the styles found, and the prompts without them."""
        ...


def parse(text: str, *, options: Options, styles: StyleExtractor) -> dict[str, object]:
    """Every field of an infotext, `Prompt` and `Negative prompt` among them.

    Values are texts as written; what is added as a default may be a number or a flag. A value `WxH`
    becomes two fields, `key-1` and `key-2`.
    """
    *lines, last = text.strip().split("\n")
    pairs = _pairs(last)
    if len(pairs) < _MIN_PAIRS:
        lines.append(last)
        pairs = []
    fields: dict[str, object] = {}
    for key, value in pairs:
        if not value:
            continue
        _add(fields, key, unquote(value))
    prompt, negative = _split_prompts(lines)
    prompt, negative, names = _without_styles(fields, prompt, negative, options, styles)
    fields["Prompt"] = prompt
    fields["Negative prompt"] = negative
    if names is not None:
        fields["Styles array"] = names
    _complete(fields)
    if options.flag("auto_backcompat"):
        _add_back_compat(fields)
    for key in options.names("infotext_skip_pasting"):
        fields.pop(key, None)
    return fields


def _pairs(line: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    position = closed = 0
    while key := _KEY.search(line, position):
        position = start = key.end()
        if key[2] is None:
            continue
        if line.startswith('"', start) and start >= closed - 1:  # else it is escaped in the last
            quoted = _QUOTED.match(line, start)
            closed = quoted.end() if quoted else len(line) + 2
        is_quoted = line.startswith('"', start) and start + 2 < closed <= len(line)
        if is_quoted and line[closed : closed + 1] in ("", ","):
            position = closed
        elif plain := _PLAIN.match(line, start):
            position = plain.end()
        pairs.append((key[1], line[start:position]))
        position += 1
    return pairs


def _add(fields: dict[str, object], key: str, value: str) -> None:
    size = _SIZE.fullmatch(value)
    if size:
        fields[f"{key}-1"], fields[f"{key}-2"] = size.groups()
    else:
        fields[key] = value


def _split_prompts(lines: list[str]) -> tuple[str, str]:
    prompt: list[str] = []
    negative: list[str] = []
    target = prompt
    for line in (line.strip() for line in lines):
        if line.startswith(NEGATIVE_MARK):
            target = negative
            line = line.removeprefix(NEGATIVE_MARK).strip()
        target.append(line)
    return "\n".join(prompt).lstrip("\n"), "\n".join(negative).lstrip("\n")


def _without_styles(
    fields: dict[str, object], prompt: str, negative: str, options: Options, styles: StyleExtractor
) -> tuple[str, str, list[str] | None]:
    """The prompts without the styles they carry, and the styles' names where they are to be set.

    Hires prompts were made with the same styles: where they are there, they must show the same
    ones, else nothing is taken out. A hires prompt that equals the prompt is "".
    """
    mode = options.text("infotext_styles")
    if mode == "Ignore":
        return prompt, negative, None
    names, bare, bare_negative = styles.extract(prompt, negative)
    if "Hires prompt" in fields or "Hires negative prompt" in fields:
        hires_names, hires, hires_negative = styles.extract(
            str(fields.get("Hires prompt", prompt)),
            str(fields.get("Hires negative prompt", negative)),
        )
        if hires_names != names:
            return prompt, negative, None
        fields["Hires prompt"] = "" if hires == bare else hires
        fields["Hires negative prompt"] = "" if hires_negative == bare_negative else hires_negative
    wanted = mode == "Apply" or (mode == "Apply if any" and bool(names))
    return bare, bare_negative, names if wanted else None


def _complete(fields: dict[str, object]) -> None:
    fields.setdefault("Clip skip", "1")
    if "Hypernet" in fields:
        strength = fields.get("Hypernet strength", "1.0")
        fields["Prompt"] = f"{fields['Prompt']}<hypernet:{fields['Hypernet']}:{strength}>"
    for key in ("Hires resize-1", "Hires resize-2"):
        fields.setdefault(key, 0)
    _convert_first_pass(fields)
    for key, value in _DEFAULTS:
        fields.setdefault(key, value)
    if fields["FP8 weight"] != "Disable":
        fields.setdefault("Cache FP16 weight for LoRA", False)
    if any(_uses_emphasis(str(fields[key])) for key in ("Prompt", "Negative prompt")):
        fields.setdefault("Emphasis", "Original")
    fields.setdefault("Refiner switch by sampling steps", False)


def _convert_first_pass(fields: dict[str, object]) -> None:
    """Old hires fix: `Size` was the target, `First pass size` what was drawn first."""
    first = [fields.get(f"First pass size-{axis}") for axis in (1, 2)]
    if None in first:
        return
    target = [int(str(fields.get(f"Size-{axis}", 512))) for axis in (1, 2)]
    drawn = [int(str(side)) for side in first]
    if 0 in drawn:  # "choose for me": about 512x512 pixels in the target's shape, in steps of 64
        scale = (512 * 512 / max(target[0] * target[1], 1)) ** 0.5
        drawn = [-(-scale * side // 64) * 64 for side in target]
    for axis in (1, 2):
        fields[f"Size-{axis}"] = int(drawn[axis - 1])
        fields[f"Hires resize-{axis}"] = target[axis - 1]


def _uses_emphasis(prompt: str) -> bool:
    """Whether a fragment of a prompt has a weight of its own."""
    try:
        fragments = parse_attention(prompt)
    except BadRequest:  # a weight that is no number, which reading a text must survive
        return True
    return any(each.weight != 1 and each.text != BREAK for each in fragments)


def _add_back_compat(fields: dict[str, object]) -> None:
    """Switch on what the release that wrote the text did differently; ours is a current one."""
    match = _VERSION.match(str(fields.get("Version", "")))
    if match is None:
        return
    version = tuple(int(part or 0) for part in match.groups())
    if version < (1, 6, 0, 0):
        if "[" in str(fields["Prompt"]):
            fields["Old prompt editing timelines"] = True
        if fields.get("Sampler") in ("DDIM", "PLMS"):
            fields["Pad conds v0"] = True
    if version < (1, 7, 0, 225):
        fields["Downcast alphas_cumprod"] = True
    if version < (1, 8, 0, 0) and "Refiner" in fields:
        fields["Refiner switch by sampling steps"] = True
