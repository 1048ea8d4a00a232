"""Infotext: building, reading, and what a request takes from it."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdapi import infotext
from sdapi.errors import BadRequest
from sdapi.options import Options
from sdapi.services.catalog.styles import Style, Styles

GOLDEN = Path(__file__).parents[2] / "golden"
VECTORS = json.loads((GOLDEN / "vectors" / "infotext.json").read_text("utf-8"))
OPTIONS = Options.defaults()


def read(text: str, *styles: Style, **changed: object) -> dict[str, object]:
    return infotext.parse(text, options=OPTIONS.overlay(changed), styles=Styles(styles))


@pytest.mark.parametrize("name", VECTORS["parse"])
def test_parsing_equals_the_recorded_fields_in_their_order(name: str):
    text, recorded = VECTORS["parse"][name]
    assert list(read(text).items()) == list(recorded.items())


@pytest.mark.parametrize(("plain", "quoted"), VECTORS["quote"].items())
def test_quoting_equals_the_recorded(plain: str, quoted: str):
    assert infotext.quote(plain) == quoted


@pytest.mark.parametrize(("quoted", "plain"), VECTORS["unquote"].items())
def test_unquoting_equals_the_recorded(quoted: str, plain: str):
    assert infotext.unquote(quoted) == plain


def test_build_drops_null_keeps_order_and_prints_a_value_like_its_key_once():
    fields = [("Steps", 6), ("CFG scale", 7.0), ("Model", None), ("Tiling", True), ("Beta", "Beta")]
    text = infotext.build(fields, "a cat", "dog")
    assert text == "a cat\nNegative prompt: dog\nSteps: 6, CFG scale: 7.0, Tiling: True, Beta"


def test_build_leaves_out_an_empty_negative_prompt_and_strips_the_whole():
    assert infotext.build([("Steps", 6)], "", "") == "Steps: 6"
    assert infotext.build([("Hires prompt", "кот, 猫")], " a", "") == 'a\nHires prompt: "кот, 猫"'


KEYS = st.from_regex(r"[A-Za-z][A-Za-z0-9 /-]{0,18}[A-Za-z0-9]", fullmatch=True).filter(
    lambda key: (
        key not in ("Version", "Negative prompt", "Hypernet", "Hires prompt")
        and not key.startswith(("First pass size", "Hires negative prompt"))
    )
)
# A value that is empty, begins with a quote, ends in a space or looks like a size is read
# differently: the reference's format has no way to write it.
VALUES = (
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
    .filter(lambda text: any(sign in text for sign in ",\n:") or text.strip() == text)
    .filter(lambda text: not text.startswith('"') and not re.fullmatch(r"\d+x\d+", text))
    .filter(lambda text: text.isprintable() or "\n" in text)
)
PROMPTS = (
    st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.just("\n"), max_size=60)
    .map(lambda text: "\n".join(line.strip() for line in text.strip().split("\n")))
    .filter(lambda text: "Negative prompt:" not in text and text.strip() == text)
)


@given(
    fields=st.dictionaries(KEYS, VALUES, min_size=3, max_size=8), prompt=PROMPTS, negative=PROMPTS
)
def test_fields_survive_being_written_and_read(fields: dict[str, str], prompt: str, negative: str):
    fields = {key: value for key, value in fields.items() if key != value}
    fields |= {"Steps": "20", "Seed": "1", "Sampler": "Euler"}
    text = infotext.build(list(fields.items()), prompt, negative)
    parsed = read(text)
    assert {key: parsed[key] for key in fields} == fields
    assert (parsed["Prompt"], parsed["Negative prompt"]) == (prompt, negative)


@given(st.text(max_size=300))
def test_any_text_parses(text: str):
    assert "Prompt" in read(text)


def test_last_line_with_fewer_than_three_pairs_belongs_to_the_prompt():
    parsed = read("cat\nNegative prompt: blurry\nSteps: 3, Size: 64x64")
    assert parsed["Negative prompt"] == "blurry\nSteps: 3, Size: 64x64"
    assert "Steps" not in parsed


STYLES = (
    Style("tiny style", "masterpiece, {prompt}, high detail", "blurry"),
    Style("append style", "oil painting, sunset", "lowres, bad"),
)
PAIRS = "Steps: 3, Seed: 1, Sampler: Euler"


def test_styles_are_taken_out_of_the_prompts():
    prompt, negative = Styles(STYLES).apply("cat", "dog", ["tiny style", "append style"])
    parsed = read(f"{prompt}\nNegative prompt: {negative}\n{PAIRS}", *STYLES)
    assert (parsed["Prompt"], parsed["Negative prompt"]) == ("cat", "dog")
    assert parsed["Styles array"] == ["tiny style", "append style"]


@pytest.mark.parametrize(
    ("mode", "prompt", "names"),
    [
        ("Ignore", "cat, oil painting, sunset", None),
        ("Apply", "cat", ["append style"]),
        ("Discard", "cat", None),
        ("Apply if any", "cat", ["append style"]),
    ],
)
def test_option_says_what_happens_to_styles(mode: str, prompt: str, names: list[str] | None):
    text = f"cat, oil painting, sunset\nNegative prompt: lowres, bad\n{PAIRS}"
    parsed = read(text, *STYLES, infotext_styles=mode)
    assert (parsed["Prompt"], parsed.get("Styles array")) == (prompt, names)


def test_a_style_must_fit_both_prompts():
    parsed = read(f"cat, oil painting, sunset\nNegative prompt: dog\n{PAIRS}", *STYLES)
    assert "Styles array" not in parsed
    assert parsed["Prompt"] == "cat, oil painting, sunset"


def test_hires_prompts_that_lack_the_styles_keep_them_all():
    text = f'cat, oil painting, sunset\nNegative prompt: lowres, bad\n{PAIRS}, Hires prompt: "x, y"'
    parsed = read(text, *STYLES)
    assert "Styles array" not in parsed
    assert (parsed["Prompt"], parsed["Hires prompt"]) == ("cat, oil painting, sunset", "x, y")


def test_styles_are_taken_out_of_hires_prompts_as_well():
    hires = '"dog, oil painting, sunset"'
    text = (
        f"cat, oil painting, sunset\nNegative prompt: lowres, bad\n{PAIRS}, Hires prompt: {hires}"
    )
    parsed = read(text, *STYLES)
    assert (parsed["Prompt"], parsed["Hires prompt"]) == ("cat", "dog")


def test_hypernet_becomes_a_tag():
    text = f"cat\n{PAIRS}, Hypernet: anime, Hypernet strength: 0.5"
    assert read(text)["Prompt"] == "cat<hypernet:anime:0.5>"


def test_old_first_pass_size_becomes_size_and_hires_resize():
    parsed = read(f"cat\n{PAIRS}, Size: 1024x768, First pass size: 512x384")
    keys = ("Size-1", "Size-2", "Hires resize-1", "Hires resize-2")
    assert [parsed[key] for key in keys] == [512, 384, 1024, 768]
    parsed = read(f"cat\n{PAIRS}, Size: 1024x1024, First pass size: 0x0")
    assert [parsed[key] for key in keys] == [512, 512, 1024, 1024]


@pytest.mark.parametrize(
    ("version", "added"),
    [
        ("v1.5.1", {"Old prompt editing timelines", "Pad conds v0", "Downcast alphas_cumprod"}),
        ("1.6.0-2-g4afaaf8a", {"Downcast alphas_cumprod"}),
        ("v1.7.0-224-gabc", {"Downcast alphas_cumprod"}),
        ("v1.7.0-225-gabc", set()),
        ("v1.10.1", set()),
        ("sdapi 0.1.0", set()),
        ("unknown", set()),
    ],
)
def test_version_switches_the_old_behaviour_on(version: str, added: set[str]):
    text = f"[a:b:3]\nSteps: 3, Seed: 1, Sampler: DDIM, Refiner: x, Version: {version}"
    parsed = read(text)
    old = {"Old prompt editing timelines", "Pad conds v0", "Downcast alphas_cumprod"}
    assert {key for key in old if parsed.get(key)} == added
    is_old = version.startswith(("v1.5", "1.6", "v1.7"))
    assert parsed["Refiner switch by sampling steps"] is is_old
    assert not old & set(read(text, auto_backcompat=False))


@pytest.mark.parametrize(
    ("prompt", "has"),
    [
        ("a (b)", True),
        ("[a]", True),
        (r"a \(b\)", False),
        ("a", False),
        ("(a:1.0) cat", False),
        ("[]", False),
        ("a BREAK b", False),
        ("(a:1.2.3)", True),
    ],
)
def test_emphasis_is_said_only_where_the_prompt_uses_it(prompt: str, has: bool):
    assert ("Emphasis" in read(f"{prompt}\n{PAIRS}")) is has


def test_a_key_without_a_value_is_not_read():
    parsed = read(f"cat\n{PAIRS}, Empty: , ControlNet 0: , Last: x")
    assert parsed["Last"] == "x"
    assert not {"Empty", "ControlNet 0"} & set(parsed)


@pytest.mark.parametrize(("told", "cached"), [("Enable", False), ("Disable", None)])
def test_fp8_weights_say_whether_loras_have_a_whole_copy(told: str, cached: bool | None):
    parsed = read(f"cat\n{PAIRS}, FP8 weight: {told}")
    assert parsed.get("Cache FP16 weight for LoRA") is cached


def test_option_names_keys_that_are_not_read():
    assert "Seed" not in read(f"cat\n{PAIRS}", infotext_skip_pasting=["Seed", "Nothing"])


def test_overrides_hold_only_what_differs_in_the_option_s_type():
    parsed = read(
        f"cat\n{PAIRS}, Clip skip: 2, RNG: NV, ENSD: 0, Eta: 0.5, Tiling: False, VAE: a.pt"
    )
    assert infotext.option_overrides(parsed, OPTIONS) == {
        "sd_vae": "a.pt",
        "CLIP_stop_at_last_layers": 2,
        "randn_source": "NV",
        "eta_ancestral": 0.5,
    }


def test_checkpoint_is_switched_only_when_the_option_allows():
    parsed = read(f"cat\n{PAIRS}, Model hash: f292162ba5")
    assert infotext.option_overrides(parsed, OPTIONS) == {}
    allowed = OPTIONS.overlay({"disable_weights_auto_swap": False})
    assert infotext.option_overrides(parsed, allowed) == {"sd_model_checkpoint": "f292162ba5"}


def resolve(sampler: str, scheduler: str) -> tuple[str, str]:
    """Takes "… Karras" apart; Karras is the default of DPM++ 2M."""
    name = sampler.removesuffix(" Karras")
    label = "Karras" if name != sampler else scheduler
    return name, "Automatic" if (name, label) == ("DPM++ 2M", "Karras") else label


OLD = (
    "a blue bird\nSteps: 5, Sampler: DPM++ 2M Karras, CFG scale: 4.5, Seed: 99, Size: 128x128, "
    "Variation seed: 5, Variation seed strength: 0.2, Version: v1.5.1"
)


def test_request_fields_of_an_old_text_are_the_recorded_ones():
    parsed = read(OLD)
    assert infotext.request_fields(parsed, "txt2img", resolve_sampler=resolve) == {
        "steps": 5,
        "seed": 99,
        "subseed": 5,
        "subseed_strength": 0.2,
        "sampler_name": "DPM++ 2M",
        "scheduler": "Automatic",
        "prompt": "a blue bird",
        "negative_prompt": "",
        "cfg_scale": 4.5,
        "width": 128,
        "height": 128,
        "hr_resize_x": 0,
        "hr_resize_y": 0,
        "hr_checkpoint_name": "Use same checkpoint",
        "hr_prompt": "",
        "hr_negative_prompt": "",
        "enable_hr": False,
        "hr_sampler_name": None,
        "hr_scheduler": None,
    }
    assert infotext.option_overrides(parsed, OPTIONS) == {"use_downcasted_alpha_bar": True}


def test_img2img_takes_sampling_fields_only():
    fields = infotext.request_fields(read(OLD), "img2img", resolve_sampler=resolve)
    assert set(fields) == {
        *("steps", "seed", "subseed", "subseed_strength", "sampler_name", "scheduler"),
    }


def test_seed_resize_sides_are_exchanged_as_in_the_reference():
    fields = infotext.request_fields(read(f"a\n{PAIRS}, Seed resize from: 64x128"), "img2img")
    assert (fields["seed_resize_from_h"], fields["seed_resize_from_w"]) == (64, 128)


def test_hires_is_on_with_a_denoising_strength():
    text = f"a\n{PAIRS}, Denoising strength: 0.5, Hires upscale: 2, Hires sampler: Euler a Karras"
    fields = infotext.request_fields(read(text), "txt2img", resolve_sampler=resolve)
    assert fields["enable_hr"] is True
    assert (fields["hr_scale"], fields["denoising_strength"]) == (2.0, 0.5)
    assert (fields["hr_sampler_name"], fields["hr_scheduler"]) == ("Euler a", "Karras")


def test_without_a_resolver_names_stay_for_the_service_to_take_apart():
    fields = infotext.request_fields(read(OLD), "img2img")
    assert fields["sampler_name"] == "DPM++ 2M Karras"
    assert "scheduler" not in fields


def test_value_of_the_wrong_type_is_an_error_that_names_the_key():
    with pytest.raises(BadRequest, match="infotext: Steps is 'many', which is no int"):
        infotext.request_fields(read("a\nSteps: many, Seed: 1, Sampler: Euler"), "txt2img")


#: the grammar in one expression, which reads some texts again and again
PAIR = re.compile(r'\s*(\w[\w /-]+):\s*("(?:[^\\"]|\\.)+"|[^,]*)(?:,|$)')


@given(st.lists(st.text('ab:",\\ /', max_size=12), min_size=3, max_size=6))
def test_pairs_are_those_of_the_grammar(parts: list[str]):
    line = "Steps: 1, Seed: 2, Size: 3," + ",".join(parts).strip()
    expected = dict[str, object](
        (key, infotext.unquote(value)) for key, value in PAIR.findall(line) if value
    )
    assert expected.items() <= read(f"a cat\n{line}").items()


@pytest.mark.parametrize("unit", [":1", "a", "a ", "1", "BREAK ", 'aa:"\\",', "(a:1)", "\\("])
def test_a_text_of_a_megabyte_is_read_once(unit: str):
    """Read again from every place it would take hours."""
    text = unit * (1_000_000 // len(unit))
    assert read(f"{text}\nSteps: 1, Seed: 2, Note: {text}")["Steps"] == "1"
    assert read(text)["Negative prompt"] == ""
