"""Options: the table, overlays, the file."""

import json
from pathlib import Path

import pytest

from sdapi.errors import BadRequest, UnknownName
from sdapi.options import Options, option_specs

GOLDEN = Path(__file__).parents[1] / "golden"
#: our own additions to the reference's options
OWN = {"sdapi_strict_networks", "prompt_attention"}
#: not settable through the API, so not in a config file the reference writes
RESTRICTED = {"api_enable_requests", "api_forbid_local_requests", "api_useragent"}

#: headings of the settings page, which that file does not keep
HEADINGS = {
    "infotext_explanation",
    "profiling_explanation",
    "sd_vae_explanation",
    "settings_in_ui",
}


def test_defaults_are_those_of_the_reference():
    recorded = json.loads((GOLDEN / "config.json").read_text("utf-8"))
    defaults = dict(Options.defaults())
    of_controlnet = {key for key in defaults if key.startswith(("control_net_", "controlnet_"))}
    # The file was recorded without that extension.
    assert set(defaults) == set(recorded) | OWN | RESTRICTED | HEADINGS | of_controlnet
    differing = {key for key in recorded if defaults[key] != recorded[key]}
    assert differing == {"sd_model_checkpoint", "sd_checkpoint_hash"}
    assert all(
        type(defaults[key]) is type(recorded[key]) for key in recorded if key not in differing
    )


def test_types_in_the_table_fit_the_defaults():
    types = {"flag": bool, "integer": int, "number": float, "text": str, "list": list}
    for spec in option_specs().values():
        assert spec.default is None or type(spec.default) is types[spec.type], spec.key


def test_overlay_leaves_the_original_as_it_was():
    options = Options.defaults()
    changed = options.overlay({"emphasis": "None"}).overlay({"n_rows": 2})
    assert (changed["emphasis"], changed["n_rows"], options["emphasis"]) == ("None", 2, "Original")


def test_unknown_option_is_refused_and_near_names_are_told():
    with pytest.raises(UnknownName, match=r"^'emphasys' is not an option; near names: 'emphasis'"):
        Options.defaults().overlay({"emphasys": 1})


def test_restricted_options_keep_their_value_in_overlays():
    changed = Options.defaults().overlay({"api_enable_requests": False, "tiling": True})
    assert changed["api_enable_requests"] is True
    assert changed.flag("tiling")


def test_typed_readers_convert_what_a_client_may_send():
    options = Options.defaults().overlay(
        {
            "CLIP_stop_at_last_layers": "2",
            "eta_ancestral": 1,
            "tiling": "false",
            "hide_samplers": "a",
        }
    )
    assert options.integer("CLIP_stop_at_last_layers") == 2
    assert options.number("eta_ancestral") == 1.0
    assert options.flag("tiling") is False
    assert options.names("hide_samplers") == ["a"]
    assert options.text("sd_model_checkpoint") == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("jpeg_quality", "high"),
        ("n_rows", "x"),
        ("CLIP_stop_at_last_layers", float("nan")),
        ("eta_noise_seed_delta", 10**400),
        ("sdxl_crop_top", 10**30),
        ("samples_format", {}),
        ("tiling", []),
        ("hide_samplers", 5),
    ],
)
def test_value_that_readers_of_the_option_cannot_use_is_refused(key: str, value: object):
    with pytest.raises(BadRequest, match=f"is no value for the option '{key}'"):
        Options.defaults().overlay({key: value})


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("tiling", "True", True),
        ("tiling", "False", False),
        ("CLIP_stop_at_last_layers", "2", 2),
        ("CLIP_stop_at_last_layers", "2.0", 2),
        ("eta_ancestral", "0.5", 0.5),
        ("emphasis", "No norm", "No norm"),
        ("sd_model_checkpoint", "abc", "abc"),
    ],
)
def test_convert_gives_the_type_of_the_default(key: str, text: str, value: object):
    converted = Options.defaults().convert(key, text)
    assert converted == value
    assert type(converted) is type(value)


def test_convert_names_the_option_of_a_bad_value():
    with pytest.raises(BadRequest, match="'x' is no value for the option 'rho'"):
        Options.defaults().convert("rho", "x")


def test_file_round_trip_keeps_keys_of_others(tmp_path: Path):
    path = tmp_path / "data" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"another_extensions_count": 5, "tiling": True}))
    options = Options.load(path)
    assert "another_extensions_count" not in options
    options.overlay({"n_rows": 3}).save(path)
    written = json.loads(path.read_text("utf-8"))
    assert (written["another_extensions_count"], written["tiling"], written["n_rows"]) == (
        5,
        True,
        3,
    )
    assert [file.name for file in path.parent.iterdir()] == ["config.json"]
    assert dict(Options.load(path)) == dict(options.overlay({"n_rows": 3}))


def test_file_that_is_missing_gives_defaults_and_a_broken_one_an_error(tmp_path: Path):
    assert dict(Options.load(tmp_path / "none.json")) == dict(Options.defaults())
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json is not valid JSON"):
        Options.load(tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="does not hold a JSON object"):
        Options.load(tmp_path / "list.json")
