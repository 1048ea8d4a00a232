import json
from pathlib import Path

import pytest

from sdapi.flags import parse
from sdapi.settings import Mount, Settings, SettingsError, settings_from

BASE = Path("/srv/sdapi")


def settings(*arguments: str, **environ: str) -> Settings:
    return settings_from(parse(arguments, environ), BASE)


def test_without_flags_everything_is_below_the_launch_folder():
    made = settings()
    assert made.data_dir == BASE
    assert made.checkpoint_dirs == (BASE / "models/Stable-diffusion",)
    assert made.lora_dirs == (BASE / "models/Lora", BASE / "models/LyCORIS")
    assert made.options_file == BASE / "config.json"
    assert made.styles_files == (BASE / "styles.csv",)
    assert made.outputs_dir == BASE / "outputs"
    assert made.auxiliary_dirs["ESRGAN"] == BASE / "models/ESRGAN"
    assert (made.host, made.port) == ("127.0.0.1", 7860)


def test_a_data_directory_is_enough_to_make_settings(tmp_path: Path):
    made = Settings(data_dir=tmp_path)
    assert made == settings("--data-dir", str(tmp_path)).__class__(data_dir=tmp_path)
    assert made.embeddings_dir == tmp_path / "embeddings"
    assert made.vae_dirs == (tmp_path / "models/VAE",)


def test_flags_and_plain_construction_agree(tmp_path: Path):
    from_flags = settings("--data-dir", str(tmp_path))
    plain = Settings(data_dir=tmp_path)
    differing = {
        name
        for name in Settings.__slots__
        if getattr(plain, name) != getattr(from_flags, name)
        and name not in ("flag_values", "setup_models_dir")
    }
    assert differing == set()


def test_the_data_directory_moves_everything():
    made = settings("--data-dir", "data-nas")
    assert made.data_dir == BASE / "data-nas"
    assert made.models_dir == BASE / "data-nas/models"
    assert made.hypernetwork_dir == BASE / "data-nas/models/hypernetworks"
    assert made.allowed_roots == (made.data_dir, made.data_dir / "outputs")


def test_the_models_directory_moves_models_only():
    made = settings("--data-dir", "/data", "--models-dir", "m")
    assert made.checkpoint_dirs == (BASE / "m/Stable-diffusion",)
    assert made.auxiliary_dirs["DAT"] == BASE / "m/DAT"
    assert made.embeddings_dir == Path("/data/embeddings")
    assert made.below_data("models/VAE") == BASE / "m/VAE"
    assert made.below_data("outputs/txt2img-images") == Path("/data/outputs/txt2img-images")
    assert made.below_data("/abs") == Path("/abs")


def test_given_folders_are_below_the_launch_folder():
    made = settings(
        *("--data-dir", "/data", "--ckpt-dir", "c", "--vae-dir", "/v", "--lora-dir", "l"),
        *("--styles-file", "more*.csv", "--ckpt", "tinyA"),
    )
    assert made.checkpoint_dirs == (Path("/data/models/Stable-diffusion"), BASE / "c")
    assert made.vae_dirs == (Path("/data/models/VAE"), Path("/v"))
    assert made.lora_dirs == (BASE / "l", Path("/data/models/LyCORIS"))
    assert made.styles_files == (Path("/data/styles.csv"), BASE / "more*.csv")
    assert made.ckpt == "tinyA"


def test_a_folder_given_twice_is_listed_once():
    assert len(settings("--ckpt-dir", "models/Stable-diffusion").checkpoint_dirs) == 1


@pytest.mark.parametrize(
    ("arguments", "host"),
    [
        ([], "127.0.0.1"),
        (["--listen"], "0.0.0.0"),
        (["--server-name", "::1"], "::1"),
        (["--listen", "--server-name", "10.0.0.1"], "10.0.0.1"),
    ],
)
def test_the_address_follows_the_webuis_flags(arguments: list[str], host: str):
    assert settings(*arguments).host == host


def test_access_flags_are_read():
    made = settings(
        *("--api-auth", "a:b,c:d", "--service-token", "one=T=1", "--allow-save-dir", "/s"),
        *("--mount", "/code/oss=oss://bucket/prefix/", "--mount", "plain"),
        *("--allow-oss", "oss://other/x", "--cors-allow-origins", "http://a,http://b"),
        SDAPI_TOKEN="T",
    )
    assert made.api_auth == (("a", "b"), ("c", "d"))
    assert made.service_tokens == {"one": "T=1"}
    assert made.token == "T"
    assert made.mounts == (Mount(Path("/code/oss"), "oss://bucket/prefix"), Mount(BASE / "plain"))
    assert made.allow_oss == ("oss://other/x",)
    assert made.cors_origins == ("http://a", "http://b")
    assert made.allowed_roots[2:] == (Path("/code/oss"), BASE / "plain", Path("/s"))


def test_a_user_whose_password_is_the_name_is_kept():
    assert settings("--api-auth", "a:a").api_auth == (("a", "a"),)


def test_model_flags_are_read():
    made = settings(
        *("--use-cpu", "All", "sd", "--model-cache-gb", "1.5", "--devices", "cuda:0, cuda:1"),
        *("--max-body-mb", "1", "--shutdown-timeout", "2", "--nowebui", "--subpath", "/sd/"),
    )
    assert made.use_cpu == ("all", "sd")
    assert made.model_cache_bytes == 3 << 29
    assert made.devices == ("cuda:0", "cuda:1")
    assert made.max_body_bytes == 1 << 20
    assert made.shutdown_timeout_s == 2
    assert not made.webui
    assert made.subpath == "/sd"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--api-auth", "nocolon"],
        ["--api-auth", "a:b:c"],
        ["--api-auth", "a:b,c"],
        ["--mount", "/a=bucket/prefix"],
        ["--mount", "/a=oss://"],
        ["--mount", "=oss://bucket"],
        ["--allow-oss", "s3://bucket"],
        ["--service-token", "T"],
        ["--service-token", "=T"],
        ["--token", " T"],
        ["--token", ""],
        ["--port", "65536"],
        ["--port", "-1"],
        ["--tls-keyfile", "k"],
        ["--tls-certfile", "c"],
        ["--tls-keyfile", "/nowhere/k", "--tls-certfile", "/nowhere/c"],
        ["--max-body-mb", "0"],
        ["--max-body-mb", "nan"],
        ["--shutdown-timeout", "nan"],
        ["--shutdown-timeout", "-1"],
        ["--model-cache-gb", "inf"],
        ["--queue-limit", "-5"],
        ["--device-id", "cuda"],
        ["--loglevel", "loud"],
        ["--cors-allow-origins-regex", "("],
    ],
)
def test_values_that_cannot_work_are_refused_by_name(arguments: list[str]):
    with pytest.raises(SettingsError) as caught:
        settings(*arguments)
    assert arguments[0] in str(caught.value)


def test_cmd_flags_match_the_recorded_answer():
    recorded = json.loads(Path(__file__).with_name("cmd_flags.json").read_text())
    made = settings(
        *("--data-dir", "/data", "--skip-torch-cuda-test", "--skip-prepare-environment"),
        *("--ckpt", "/data/models/Stable-diffusion/tinyA.safetensors", "--no-half"),
        *("--no-half-vae", "--use-cpu", "all", "--port", "17860", "--api", "--nowebui"),
        *("--server-name", "127.0.0.1", "--no-download-sd-model"),
    )
    assert list(made.cmd_flags().items()) == list(recorded.items())


def test_cmd_flags_do_not_show_credentials():
    shown = settings("--api-auth", "a:geheim", "--token", "geheim", "--gradio-auth", "a:geheim")
    assert "geheim" not in json.dumps(shown.cmd_flags())
    assert shown.cmd_flags()["api_auth"] == "***"


def test_cmd_flags_work_without_a_command_line(tmp_path: Path):
    shown = Settings(data_dir=tmp_path).cmd_flags()
    assert shown["data_dir"] == str(tmp_path)
    assert shown["lora_dir"] == str(tmp_path / "models/Lora")
