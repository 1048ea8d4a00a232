from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdapi.engine.networks.selection import (
    HypernetUse,
    LoraUse,
    NetworkFiles,
    NetworkSet,
    check_tag,
    network_tags,
    select,
)
from sdapi.engine.weights.model_file import ModelFile
from sdapi.errors import BadRequest

FILE, HYPER = ModelFile(Path("a.safetensors")), ModelFile(Path("h.pt"))
FILES = NetworkFiles({"a": FILE}, {"h": HYPER})


@pytest.mark.parametrize(
    ("tag", "te", "unet", "dyn"),
    [
        ("<lora:a>", 1.0, 1.0, None),
        ("<lora:a:0.5>", 0.5, 0.5, None),
        ("<lyco:a:-0.5:2>", -0.5, 2.0, None),
        ("<lora:a:1:1:2>", 1.0, 1.0, 2),
        ("<lora:a:te=0.2:unet=1.0>", 0.2, 1.0, None),
        ("<lora:a:unet=0.3>", 1.0, 0.3, None),
        ("<lora:a:0.9:te=0.2:dyn=4>", 0.2, 0.2, 4),
        ("<lora:a:1:1:0>", 1.0, 1.0, None),
    ],
)
def test_strengths_are_read_by_place_and_by_name(tag: str, te: float, unet: float, dyn: int | None):
    assert select(f"a cat {tag}", FILES).loras == (LoraUse("a", FILE, te, unet, dyn),)


def test_tags_keep_their_order_and_repeat_and_unknown_names_are_left_out():
    chosen = select("<lora:a:1> <lora:gone> <hypernet:h:0.5> <lora:a:2> <other:x>", FILES)
    assert [use.te for use in chosen.loras] == [1.0, 2.0]
    assert chosen.hypernets == (HypernetUse("h", HYPER, 0.5),)


@pytest.mark.parametrize("bad", ["x", "", "nan", "inf", "1e9", "1:x", "1:1:1.5"])
def test_one_unreadable_strength_leaves_out_all_of_its_kind(bad: str):
    prompt = f"<lora:a:1> <lora:a:{bad}> <hypernet:h>"
    assert select(prompt, FILES) == NetworkSet((), (HypernetUse("h", HYPER),))
    good, unreadable, _ = network_tags(prompt)
    check_tag(good)
    with pytest.raises(BadRequest, match="<lora:a>"):
        check_tag(unreadable)


def test_tag_without_a_name_is_told_apart():
    with pytest.raises(BadRequest, match="names no network"):
        check_tag(network_tags("<lora:te=1>")[0])


@given(st.text(alphabet="<>:=.loraehypnet1-+ a\n", max_size=60))
def test_any_text_can_be_read(text: str):
    select(text, FILES)
    for tag in network_tags(text):
        with suppress(BadRequest):
            check_tag(tag)
