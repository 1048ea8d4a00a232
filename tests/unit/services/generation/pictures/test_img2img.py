"""From a request's pictures to what the engine draws from: sizes, masks, refusals."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdapi.engine.jobs.init_images import MaskedContent
from sdapi.engine.upscaling.upscaler import ModelUpscaler
from sdapi.errors import BadImage, BadRequest, UnknownName
from sdapi.images import Upscale
from sdapi.options import Options
from sdapi.schemas.generation import Img2ImgRequest
from sdapi.services.catalog.upscalers import Upscalers
from sdapi.services.generation.pictures.img2img import (
    InitInputs,
    PreparedInit,
    pixel_hash,
    prepare_init,
)
from sdapi.services.generation.pictures.soft_inpainting import SoftInpaintingArgs
from sdapi.settings import Settings
from tests.fakes import no_models

SIZE = (64, 64)
UPSCALERS = Upscalers(Settings(data_dir=Path("nowhere")))


def picture(size: tuple[int, int] = SIZE, colour: str = "red") -> Image.Image:
    return Image.new("RGB", size, colour)


def spot(size: tuple[int, int] = SIZE, box: tuple[int, int, int, int] = (20, 20, 30, 30)):
    """A mask with one white box."""
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def prepare(
    inputs: InitInputs | None = None,
    options: dict[str, Any] | None = None,
    size: tuple[int, int] = SIZE,
    count: int = 1,
    **body: Any,
) -> PreparedInit:
    request = Img2ImgRequest.model_validate(body)
    chosen = Options.defaults().overlay(options or {})
    return prepare_init(
        inputs or InitInputs((picture(),)), request, chosen, size, count, UPSCALERS, no_models
    )


def masked(
    mask: Image.Image | None = None, image: Image.Image | None = None, **body: Any
) -> PreparedInit:
    return prepare(InitInputs((image or picture(),), mask or spot()), **body)


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_pictures_come_to_the_size_of_the_job(mode: int):
    prepared = prepare(InitInputs((picture((100, 30)),)), resize_mode=mode)
    assert prepared.init.images[0].size == SIZE
    assert not prepared.init.latent_resize


def test_resize_mode_3_leaves_pictures_as_they_are():
    prepared = prepare(InitInputs((picture((101, 37)),)), resize_mode=3)
    assert prepared.init.images[0].size == (101, 37)
    assert prepared.init.latent_resize


def test_transparency_shows_the_background_colour():
    clear = Image.new("RGBA", SIZE, (9, 9, 9, 0))
    prepared = prepare(InitInputs((clear,)), {"img2img_background_color": "#00ff00"})
    assert prepared.init.images[0].getpixel((5, 5)) == (0, 255, 0)
    with pytest.raises(BadRequest, match=r"^img2img_background_color: 'nocolour'"):
        prepare(InitInputs((clear,)), {"img2img_background_color": "nocolour"})


def test_request_without_a_mask_has_no_mask_keys():
    prepared = prepare(denoising_strength=0.6)
    assert prepared.keys == {"Denoising strength": 0.6}
    assert prepared.init.mask is None
    assert prepared.finish.surroundings is None


def test_keys_of_a_mask_are_in_the_order_of_the_infotext():
    keys = masked(inpainting_mask_invert=1, mask_blur=2, inpaint_full_res_padding=8).keys
    assert list(keys.items()) == [
        ("Denoising strength", 0.75),
        ("Mask mode", "Inpaint not masked"),
        ("Mask blur", 2),
        ("Inpaint area", "Only masked"),
        ("Masked area padding", 8),
        ("Masked content", "fill"),
    ]


def test_blur_that_differs_by_axis_has_an_empty_key():
    assert masked(mask_blur_x=3, mask_blur_y=5).keys["Mask blur"] is None
    assert "Mask blur" not in masked(mask_blur=0).keys
    assert masked(mask_blur_x=3, mask_blur_y=5, mask_blur=7).keys["Mask blur"] == 7


@pytest.mark.parametrize(
    ("fill", "content", "key"),
    [
        (0, MaskedContent.PICTURE, "fill"),
        (1, MaskedContent.PICTURE, None),
        (2, MaskedContent.NOISE, "latent noise"),
        (3, MaskedContent.NOTHING, "latent nothing"),
    ],
)
def test_masked_content_is_one_of_four(fill: int, content: MaskedContent, key: str | None):
    prepared = masked(inpainting_fill=fill)
    assert prepared.init.mask is not None
    assert prepared.init.mask.content is content
    assert prepared.keys.get("Masked content") == key


def test_only_masked_draws_the_part_enlarged():
    image = picture((200, 200))
    image.paste((0, 0, 255), (90, 90, 110, 110))
    mask = spot((200, 200), (90, 90, 110, 110))
    prepared = masked(mask, image, mask_blur=0, inpainting_fill=1)
    assert prepared.init.images[0].getpixel((1, 1)) == (0, 0, 255)
    assert prepared.init.mask is not None
    assert prepared.init.mask.image.getextrema() == (255, 255)
    surroundings = prepared.finish.surroundings
    assert surroundings is not None
    assert surroundings.box == (90, 90, 110, 110)
    assert surroundings.pictures[0].size == (200, 200)


def test_only_masked_with_a_black_mask_is_plain_img2img():
    prepared = masked(Image.new("L", SIZE), inpainting_fill=0)
    assert prepared.init.mask is None
    assert prepared.finish.surroundings is None
    assert prepared.keys == {"Denoising strength": 0.75, "Mask blur": 4}


def test_whole_picture_takes_a_mask_of_any_size():
    prepared = masked(spot((130, 40)), inpaint_full_res=False)
    assert prepared.init.mask is not None
    assert prepared.init.mask.image.size == SIZE


def test_mask_of_another_size_cannot_be_only_masked():
    with pytest.raises(BadRequest, match=r"^mask: it has 130x40 pixels and an init image 64x64"):
        masked(spot((130, 40), (0, 0, 9, 9)))


def test_resize_mode_3_brings_the_mask_to_the_picture():
    prepared = masked(
        spot(), picture((96, 48)), resize_mode=3, inpaint_full_res=False, inpainting_fill=0
    )
    assert prepared.init.images[0].size == (96, 48)
    assert prepared.init.mask is not None
    assert prepared.init.mask.image.size == SIZE
    assert prepared.finish.surroundings is not None
    assert prepared.finish.surroundings.hidden.size == (96, 48)


def test_resize_mode_3_has_no_say_in_only_masked():
    prepared = masked(spot(), resize_mode=3)
    assert not prepared.init.latent_resize
    assert prepared.init.images[0].size == SIZE


def test_colours_come_from_the_picture_that_is_drawn_from():
    assert prepare().finish.colours == ()
    inputs = InitInputs((picture((200, 100)),))
    (model,) = prepare(inputs, {"img2img_color_correction": True}).finish.colours
    assert model.size == SIZE


def test_soft_inpainting_needs_a_mask():
    soft = SoftInpaintingArgs((1, 0.5, 4, 0, 0.5, 2))
    assert prepare(InitInputs((picture(),), None, soft)).keys == {"Denoising strength": 0.75}
    prepared = prepare(InitInputs((picture(),), spot(), soft))
    assert next(iter(prepared.keys)) == "Soft inpainting enabled"
    assert prepared.init.mask is not None
    assert prepared.init.mask.soft is not None
    assert not prepared.init.mask.rounds


def test_init_images_are_kept_for_their_files_when_an_option_asks_for_them():
    assert prepare().image_hash is None
    image = picture((10, 10))
    prepared = prepare(InitInputs((image,)), {"save_init_img": True})
    assert prepared.image_hash == pixel_hash(image)
    assert prepared.originals == (image,)


def test_upscaler_of_small_pictures_is_an_option():
    checks = Image.effect_noise((16, 16), 80).convert("RGB")
    nearest = prepare(InitInputs((checks,)), {"upscaler_for_img2img": "Nearest"})
    assert nearest.init.images[0].getpixel((0, 0)) == nearest.init.images[0].getpixel((3, 3))
    smooth = prepare(InitInputs((checks,)))
    assert nearest.init.images[0].tobytes() != smooth.init.images[0].tobytes()
    with pytest.raises(UnknownName, match=r"^upscaler_for_img2img: .* named Nearset; .*'Nearest'"):
        prepare(options={"upscaler_for_img2img": "Nearset"})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inpainting_fill": 4}, "^inpainting_fill: 4 is unknown; there are 0"),
        ({"inpainting_fill": -1}, "^inpainting_fill: -1"),
        ({"inpainting_fill": None}, "^inpainting_fill: None"),
        ({"inpainting_mask_invert": 2}, "^inpainting_mask_invert: 2"),
        ({"mask_blur": 1001}, "^mask_blur: 1001 is too much; at most 1000"),
        ({"mask_blur_y": 10**9}, "^mask_blur: 1000000000"),
        ({"mask_blur_x": None}, "^mask_blur_x, mask_blur_y: null"),
        ({"inpaint_full_res_padding": None}, "^inpaint_full_res_padding: null"),
        ({"inpaint_full_res_padding": -40}, "^inpaint_full_res_padding: -40 leaves nothing"),
    ],
)
def test_numbers_that_cannot_work_are_refused_by_name(body: dict[str, Any], message: str):
    with pytest.raises(BadRequest, match=message):
        masked(**body)


def test_numbers_of_a_mask_are_not_looked_at_without_one():
    assert prepare(inpainting_fill=9, mask_blur=10**9).init.mask is None


@pytest.mark.parametrize("padding", [10**15, -3])
def test_padding_beyond_the_picture_or_inwards_is_taken(padding: int):
    box = masked(inpaint_full_res_padding=padding, mask_blur=0).finish.surroundings.box
    assert box == ((0, 0, 64, 64) if padding > 0 else (23, 23, 27, 27))


def test_blur_of_a_large_mask_is_refused_where_it_would_take_minutes():
    mask = Image.new("L", (8000, 8000))
    with pytest.raises(BadRequest, match=r"^mask_blur: 900 is too much for a mask of 8000x8000"):
        masked(mask, mask_blur=900)


def test_pictures_too_large_to_answer_with_are_refused_before_anything_is_done():
    huge = Image.new("L", (9000, 9000))
    with pytest.raises(BadRequest, match=r"^mask: 9000x9000 is more than 64 megapixels"):
        masked(huge, huge)
    large = Image.new("L", (4000, 4000), 255)
    with pytest.raises(BadRequest, match="100 results of 4000x4000"):
        masked(large, large, mask_blur=0, count=100)


def test_strip_that_would_be_put_back_through_a_huge_square_is_refused():
    strip = Image.new("L", (40, 12000), 255)
    with pytest.raises(BadImage, match="would grow to 12000x12000"):
        masked(strip, strip, mask_blur=0)


@pytest.mark.parametrize("mode", [0, 1])
def test_upscaler_that_would_make_a_huge_picture_is_refused(mode: int):
    inputs = InitInputs((picture((2, 3000)),))
    with pytest.raises(BadImage, match="would grow"):
        prepare(inputs, {"upscaler_for_img2img": "Lanczos"}, (3000, 2), resize_mode=mode)


def test_resize_mode_3_wants_pictures_of_one_size_that_fill_a_latent_cell():
    with pytest.raises(BadRequest, match=r"^init_images: with resize_mode 3 all must have"):
        prepare(InitInputs((picture(), picture((72, 64)))), resize_mode=3)
    with pytest.raises(BadRequest, match=r"^init_images: 4x90 is too small for resize_mode 3"):
        prepare(InitInputs((picture((4, 90)),)), resize_mode=3)
    with pytest.raises(BadRequest, match=r"^init_images: 5000x5000 is more than 16 megapixels"):
        prepare(InitInputs((Image.new("L", (5000, 5000)),)), resize_mode=3)


def test_upscaler_that_is_a_model_is_run_by_whoever_has_a_device(tmp_path: Path):
    model = tmp_path / "models" / "ESRGAN" / "large.pth"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"x")
    options = Options.defaults().overlay({"upscaler_for_img2img": "large"})
    upscalers = Upscalers(Settings(data_dir=tmp_path))
    asked: list[tuple[str, tuple[int, int], float]] = []

    def runs_model(upscaler: ModelUpscaler) -> Upscale:
        def red(image: Image.Image, scale: float) -> Image.Image:
            asked.append((upscaler.name, image.size, scale))
            return Image.new("RGB", (image.width * 2, image.height * 2), "red")

        return red

    inputs = InitInputs((picture((32, 16)),))
    request = Img2ImgRequest()
    prepared = prepare_init(inputs, request, options, SIZE, 1, upscalers, runs_model)

    assert asked == [("large", (32, 16), 4.0)]
    assert prepared.init.images[0].size == SIZE
    assert prepared.init.images[0].getpixel((5, 5)) == (255, 0, 0)
