import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdapi.flags import BY_DEST, FLAGS, REPEATABLE, FlagError, parse


def test_the_command_line_of_an_eas_service_file_is_understood():
    line = (
        "--listen --port=8000 --skip-version-check --no-hashing --no-download-sd-model "
        "--skip-install --api --filebrowser --data-dir data-nas"
    )
    parsed = parse(line.split(), {})
    assert parsed["port"] == 8000
    assert parsed["data_dir"] == "data-nas"
    assert parsed["no_hashing"]
    assert parsed["listen"]
    assert [warning.partition(" ")[0] for warning in parsed.warnings()] == ["--filebrowser"]


def test_repeatable_flags_collect_and_add_to_their_default():
    parsed = parse(["--allow-url-host", "a.example", "--allow-url-host=*.b.example"], {})
    assert parsed["allow_url_host"] == ["*-internal.aliyuncs.com", "a.example", "*.b.example"]
    assert parse([], {})["allow_url_host"] == ["*-internal.aliyuncs.com"]
    assert parse([], {}).given == frozenset()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lsten"], "'--listen'"),
        (["--no-half-va=1"], "'--no-half-vae'"),
        (["--no-half-v"], "'--no-half-vae'"),
        (["serve"], "unexpected argument 'serve'"),
        (["--port"], "--port"),
        (["--port", "x"], "--port"),
        (["--port", "1.5"], "--port"),
        (["--precision", "double"], "--precision"),
        (["--listen=yes"], "--listen"),
    ],
)
def test_mistakes_are_named_with_the_nearest_flags(arguments: list[str], message: str):
    with pytest.raises(FlagError) as caught:
        parse(arguments, {})
    assert message in str(caught.value)


def test_the_environment_is_below_the_command_line():
    environ = {"SDAPI_TOKEN": "T", "SDAPI_PORT": "1", "SDAPI_MOUNT": "/a, /b", "SDAPI_API": "off"}
    parsed = parse(["--port", "2"], environ)
    assert parsed["token"] == "T"
    assert parsed["port"] == 2
    assert parsed["mount"] == ["/a", "/b"]
    assert parsed["api"] is False
    assert parse(["--mount", "/c"], environ)["mount"] == ["/c"]


def test_the_webuis_own_variable_comes_before_the_arguments():
    environ = {"COMMANDLINE_ARGS": "--port 1 --mount '/with space' --listen", "SDAPI_PORT": "3"}
    parsed = parse(["--port", "2", "--mount", "/b"], environ)
    assert parsed["port"] == 2
    assert parsed["listen"]
    assert parsed["mount"] == ["/with space", "/b"]


@pytest.mark.parametrize(
    "environ",
    [
        {"SDAPI_PORT": "x"},
        {"SDAPI_LISTEN": "perhaps"},
        {"SDAPI_PRECISION": "double"},
        {"COMMANDLINE_ARGS": "--port 'x"},
        {"COMMANDLINE_ARGS": "--lsten"},
    ],
)
def test_mistakes_in_the_environment_are_refused(environ: dict[str, str]):
    with pytest.raises(FlagError):
        parse([], environ)


def test_variables_that_kubernetes_makes_are_let_be():
    environ = {"SDAPI_PORT": "tcp://10.0.0.1:80", "SDAPI_SERVICE_HOST": "x", "SDAPI_TOKEN": ""}
    assert parse([], environ).given == frozenset()


def test_commands_are_not_taken_from_the_environment():
    environ = {"SDAPI_VERSION": "0.1.0", "SDAPI_TEST": "1", "SDAPI_EXIT": "1"}
    assert parse([], environ).given == frozenset()


@given(st.lists(st.text(max_size=12), max_size=4), st.text(max_size=20))
def test_any_command_line_is_read_or_refused(arguments: list[str], variable: str):
    if any(argument in ("-h", "--help") for argument in (*arguments, *variable.split())):
        return
    with contextlib.suppress(FlagError):
        parsed = parse(arguments, {"COMMANDLINE_ARGS": variable})
        assert set(parsed.values) == set(BY_DEST)


def test_defaults_of_repeatable_flags_are_not_shared():
    parse([], {})["styles_file"].append("x")
    for flag in FLAGS:
        if flag.kind in REPEATABLE:
            assert parse([], {})[flag.dest] == flag.default


def test_reading_flags_needs_the_standard_library_only():
    code = "import sdapi.flags, sys; print(*sys.modules)"
    root = Path(__file__).parents[3]
    loaded = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(root)!r}); {code}",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = {name.partition(".")[0] for name in loaded.split()}
    assert names <= set(sys.stdlib_module_names) | {"sdapi", "__main__"}


def test_a_flag_that_is_not_built_yet_says_so():
    (warning,) = parse(["--download-sd-model"], {}).warnings()
    assert warning.startswith("--download-sd-model has no effect: not built yet")
