"""The server's options as the engine gets them."""

from typing import Any

import pytest

from sdapi.engine.jobs.job import Churn
from sdapi.errors import BadRequest
from sdapi.options import Options
from sdapi.schemas.generation import Img2ImgRequest, Txt2ImgRequest
from sdapi.services.generation.drafting.sampling_options import (
    churn,
    hypertile,
    hypertile_keys,
    sampling_options,
    token_merging_ratio,
    token_merging_ratio_hr,
)


def options(**changed: Any) -> Options:
    return Options.defaults().overlay(changed)


def keys(**changed: Any) -> dict[str, object]:
    return hypertile_keys(hypertile(options(**changed)))


def test_hypertile_tells_only_what_is_not_at_its_default():
    assert keys() == {}
    assert keys(hypertile_enable_unet=True, hypertile_max_depth_unet=1) == {
        "Hypertile U-Net": True,
        "Hypertile U-Net max depth": 1,
        "Hypertile U-Net max tile size": None,
        "Hypertile U-Net swap size": None,
    }
    assert keys(hypertile_enable_vae=True, hypertile_max_tile_vae=256) == {
        "Hypertile VAE": True,
        "Hypertile VAE max depth": None,
        "Hypertile VAE max tile size": 256,
        "Hypertile VAE swap size": None,
    }


def test_second_pass_is_told_only_without_the_first():
    assert next(iter(keys(hypertile_enable_unet_secondpass=True))) == "Hypertile U-Net second pass"
    both = keys(hypertile_enable_unet=True, hypertile_enable_unet_secondpass=True)
    assert "Hypertile U-Net second pass" not in both


def test_img2img_has_a_token_merging_ratio_of_its_own():
    set_both = options(token_merging_ratio=0.2, token_merging_ratio_img2img=0.4)
    asked = Img2ImgRequest(override_settings={"token_merging_ratio": 0.2})
    assert token_merging_ratio(set_both, Txt2ImgRequest()) == 0.2
    assert token_merging_ratio(set_both, Img2ImgRequest()) == 0.4
    assert token_merging_ratio(set_both, asked) == 0.2
    assert token_merging_ratio(options(token_merging_ratio=0.2), Img2ImgRequest()) == 0.2


def test_second_pass_merges_as_the_first_unless_told_otherwise():
    assert token_merging_ratio_hr(options(token_merging_ratio=0.2)) == 0.2
    assert token_merging_ratio_hr(options(token_merging_ratio_hr=0.3)) == 0.3


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_ratio_that_is_no_share_is_refused_by_name(value: float):
    with pytest.raises(BadRequest, match="token_merging_ratio"):
        token_merging_ratio(options(token_merging_ratio=value), Txt2ImgRequest())


def test_churn_comes_from_the_request_else_from_the_options():
    changed = options(s_churn=8, s_tmax=0)
    assert churn(changed, Txt2ImgRequest(s_churn=5, s_noise=0.9)) == Churn(churn=5.0, noise=0.9)
    assert churn(changed, Txt2ImgRequest()) == Churn(churn=8.0)
    assert churn(changed) == Churn(churn=8.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sd_noise_schedule": "Twice"},
        {"hypertile_max_depth_unet": 9},
        {"hypertile_max_tile_vae": 4096},
    ],
)
def test_option_out_of_its_range_is_refused_by_name(wrong: dict[str, Any]):
    (name,) = wrong
    read = hypertile if name.startswith("hypertile") else sampling_options
    with pytest.raises(BadRequest, match=name):
        read(options(**wrong))
