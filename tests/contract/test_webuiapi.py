"""The `webuiapi` client package, unmodified, against a server of this process's own."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
import webuiapi
from PIL import Image

from sdapi.app import build_app
from sdapi.settings import Settings
from tests.fakes import FakeEngine, FakeEngines, colour_of
from tests.servers import wait_ready


@pytest.fixture
def api(data_dir: Path, engine: FakeEngine) -> Iterator[webuiapi.WebUIApi]:
    settings = Settings(data_dir=data_dir, api_auth=(("ann", "secret"),))
    app = build_app(settings, FakeEngines(engine))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_ready(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        api = webuiapi.WebUIApi(host="127.0.0.1", port=port, sampler="Euler a", steps=2)
        api.set_auth("ann", "secret")
        yield api
    finally:
        server.should_exit = True
        thread.join()


def test_it_draws(api: webuiapi.WebUIApi):
    result = api.txt2img(prompt="a cat", seed=7, width=64, height=64)
    assert result.image.getpixel((0, 0)) == colour_of(7)
    assert result.info["sampler_name"] == "Euler a"
    assert result.parameters["prompt"] == "a cat"


def test_it_draws_from_pictures(api: webuiapi.WebUIApi):
    init = Image.new("RGB", (64, 64), "red")
    result = api.img2img(images=[init], prompt="a dog", seed=9, width=64, height=64)
    assert result.image.getpixel((0, 0)) == colour_of(9)


def test_it_draws_under_a_mask(api: webuiapi.WebUIApi, engine: FakeEngine):
    init, mask = Image.new("RGB", (64, 64), "red"), Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    size = {"width": 64, "height": 64, "inpaint_full_res": False}
    result = api.img2img(images=[init], mask_image=mask, mask_blur=0, seed=9, **size)
    assert result.image.getpixel((0, 0)) == (255, 0, 0)
    assert result.image.getpixel((63, 0)) == colour_of(9)


def test_it_enlarges_pictures(api: webuiapi.WebUIApi):
    picture = Image.new("RGB", (64, 48), "red")
    one = api.extra_single_image(picture, upscaler_1=webuiapi.Upscaler.Lanczos, upscaling_resize=2)
    assert one.image.size == (128, 96)
    several = api.extra_batch_images([picture, picture], upscaler_1="Nearest", upscaling_resize=2)
    assert [image.size for image in several.images] == [(128, 96)] * 2
    assert "Nearest" in several.info


def test_it_draws_with_scripts(api: webuiapi.WebUIApi):
    small = {"width": 64, "height": 64, "seed": 5}
    plot = [1, "5,6", [], 0, "", [], 0, "", [], False, True, *[False] * 5, 0, False]
    result = api.txt2img(script_name="X/Y/Z Plot", script_args=plot, **small)
    assert [image.size for image in result.images] == [(128, 64), (64, 64), (64, 64)]
    upscaled = api.img2img(
        images=[Image.new("RGB", (64, 64))],
        script_name="SD upscale",
        script_args=["", 16, "Lanczos", 2.0],
        **small,
    )
    assert upscaled.image.size == (128, 128)


# The client uses what its own library is about to drop.
@pytest.mark.filterwarnings("ignore:.* deprecated and will be removed:DeprecationWarning")
def test_it_draws_without_waiting(api: webuiapi.WebUIApi):
    async def draw() -> webuiapi.WebUIApiResult:
        return await api.txt2img(prompt="a cat", seed=7, width=64, height=64, use_async=True)

    assert asyncio.run(draw()).image.getpixel((0, 0)) == colour_of(7)


def test_it_draws_with_controlnet_units(api: webuiapi.WebUIApi, engine: FakeEngine, data_dir: Path):
    folder = data_dir / "models" / "ControlNet"
    folder.mkdir(parents=True)
    (folder / "control_edges.safetensors").write_bytes(b"weights")
    assert api.controlnet_version() == 3
    (model,) = api.controlnet_model_list()
    assert "canny" in api.controlnet_module_list()
    photo = Image.linear_gradient("L").convert("RGB")
    unit = webuiapi.ControlNetUnit(image=photo, module="canny", model=model, control_mode=2)
    drawn = api.txt2img(prompt="a cat", seed=7, width=64, height=64, controlnet_units=[unit])
    assert len(drawn.images) == 2
    assert drawn.images[1].size == (64, 64)
    # Without a picture of its own the client sends an empty text: img2img lends its own.
    unit = webuiapi.ControlNetUnit(module="none", model="control_edges")
    api.img2img(images=[photo], seed=7, width=64, height=64, controlnet_units=[unit, unit])
    (stages,) = engine.jobs[-1].stages
    assert [each.weight for each in stages.units] == [1.0, 1.0]
    # It sends an empty list of units where it believes that there is ControlNet.
    assert api.txt2img(seed=7, width=64, height=64).image.getpixel((0, 0)) == colour_of(7)


def test_it_detects_maps(api: webuiapi.WebUIApi):
    photo = Image.linear_gradient("L").convert("RGB")
    found = api.controlnet_detect([photo], module="invert")
    assert found.image.getpixel((0, 0)) == (255, 255, 255)


def test_it_reads_and_changes_options(api: webuiapi.WebUIApi):
    options = api.get_options()
    assert options["samples_format"] == "png"
    api.set_options({"CLIP_stop_at_last_layers": 2})
    assert api.get_options()["CLIP_stop_at_last_layers"] == 2
    api.util_set_model("one")
    assert api.util_get_current_model().startswith("one.safetensors")


def test_it_lists_what_there_is(api: webuiapi.WebUIApi):
    assert api.util_get_model_names()[0].startswith("one.safetensors")
    assert api.get_samplers()[0]["name"] == "DPM++ 2M"
    assert "x/y/z plot" in api.get_scripts()["txt2img"]
    assert api.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert api.get_loras() == []
    assert api.get_hypernetworks() == []
    assert api.get_prompt_styles() == []
    assert "ram" in api.get_memory()
    assert api.get_cmd_flags()["data_dir"].endswith("data")
    assert api.refresh_checkpoints() is None
    assert api.get_sd_models()[0]["model_name"] == "one"
    assert api.get_sd_vae() == []
    assert [each["name"] for each in api.get_upscalers()] == ["None", "Lanczos", "Nearest"]
    assert api.get_latent_upscale_modes()[0]["name"] == "Latent"
    assert api.get_face_restorers()[0]["name"] == "CodeFormer"
    assert len(api.get_realesrgan_models()) == 6
    assert "karras" in api.util_get_scheduler_names()
    assert "Euler a" in api.util_get_sampler_names()
    assert api.get_schedulers()[0]["label"] == "Automatic"
    assert api.util_wait_for_ready() is None
    assert api.skip() is None


def test_it_follows_and_interrupts(api: webuiapi.WebUIApi, engine: FakeEngine):
    engine.delay_s = 30
    thread = threading.Thread(target=api.txt2img, kwargs={"width": 64, "height": 64})
    thread.start()
    assert engine.is_running.wait(10)
    end = time.monotonic() + 10
    while api.get_progress()["state"]["job_count"] != 1:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert api.interrupt() == {}
    thread.join()
    assert api.get_progress()["progress"] == 0


def test_it_reads_the_text_of_a_picture(api: webuiapi.WebUIApi):
    result = api.txt2img(prompt="a cat", seed=7, width=64, height=64)
    assert "a cat" in api.png_info(result.image).info


def test_it_hears_what_is_missing_to_interrogate(api: webuiapi.WebUIApi):
    with pytest.raises(RuntimeError, match=r"config\.json is not there"):
        api.interrogate(Image.new("RGB", (64, 64)))
