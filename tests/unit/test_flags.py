import ast
import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdapi.flags import BY_DEST, FLAGS, REPEATABLE, Flag, FlagError, Kind, parse
from sdapi.settings import Settings, settings_from

#: webui 1.10.1, its ControlNet extension, and PAI's build of it
VOCABULARY = """
administrator allow-code always-batch-cond-uncond api api-auth api-log api-server-stop autolaunch
bsrgan-models-path ckpt ckpt-dir clip-models-path codeformer-models-path config cors-allow-origins
cors-allow-origins-regex dat-models-path data-dir deepdanbooru device-id disable-all-extensions
disable-console-progressbars disable-extra-extensions disable-model-loading-ram-optimization
disable-nan-check disable-opt-split-attention disable-safe-unpickle disable-tls-verify
do-not-download-clip dump-sysinfo embeddings-dir enable-console-prompts
enable-insecure-extension-access esrgan-models-path exit filenames-max-length
force-enable-xformers freeze-settings freeze-settings-in-sections freeze-specific-settings
gfpgan-dir gfpgan-model gfpgan-models-path gradio-allowed-path gradio-auth gradio-auth-path
gradio-debug gradio-img2img-tool gradio-inpaint-tool gradio-queue hide-ui-dir-config
hypernetwork-dir ldsr-models-path listen localizations-dir log-startup loglevel lora-dir lowram
lowvram lyco-dir-backcompat max-batch-count medvram medvram-sdxl models-dir ngrok ngrok-options
ngrok-region no-download-sd-model no-gradio-queue no-half no-half-vae no-hashing
no-progressbar-hiding no-prompt-history nowebui opt-channelslast opt-sdp-attention
opt-sdp-no-mem-attention opt-split-attention opt-split-attention-invokeai opt-split-attention-v1
opt-sub-quad-attention port precision realesrgan-models-path reinstall-torch reinstall-xformers
scunet-models-path server-name share show-negative-prompt skip-install skip-load-model-at-start
skip-prepare-environment skip-python-version-check skip-torch-cuda-test skip-version-check
styles-file subpath sub-quad-chunk-threshold sub-quad-kv-chunk-size sub-quad-q-chunk-size
swinir-models-path test-server textual-inversion-templates-dir theme timeout-keep-alive
tls-certfile tls-keyfile ui-config-file ui-debug-mode ui-settings-file
unix-filenames-sanitization unload-gfpgan upcast-sampling update-all-extensions update-check
use-cpu use-ipex use-textbox-seed vae-dir vae-path xformers xformers-flash-attention
controlnet-annotator-models-path controlnet-dir controlnet-loglevel
controlnet-preprocessor-cache-size no-half-controlnet filebrowser sd-dynamic-cache time-log
"""

SAMPLES = {
    Kind.SWITCH: [],
    Kind.TEXT: ["x"],
    Kind.INTEGER: ["1"],
    Kind.NUMBER: ["0.5"],
    Kind.PATH: ["a/b"],
    Kind.PATHS: ["a/b"],
    Kind.TEXTS: ["x"],
    Kind.WORDS: ["all"],
    Kind.JSON: ['{"a": 1}'],
}


def test_every_flag_of_the_webui_is_known():
    assert {f"--{name}" for name in VOCABULARY.split()} <= {flag.name for flag in FLAGS}


def test_names_are_unique():
    assert len(BY_DEST) == len(FLAGS)


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_every_flag_is_accepted_and_warns_only_when_it_does_not_act(flag):
    sample = [flag.choices[0]] if flag.choices else SAMPLES[flag.kind]
    parsed = parse([flag.name, *sample], {})
    assert parsed.given == {flag.dest}
    assert len(parsed.warnings()) == (0 if flag.acts else 1)
    if sample and flag.kind is not Kind.WORDS:
        assert parse([f"{flag.name}={sample[0]}"], {}) == parsed


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
    root = Path(__file__).parents[2]
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


#: values that differ from the default, where the kind's sample is refused
VALID = {
    "--allow-oss": ["oss://bucket/prefix"],
    "--api-auth": ["user:password"],
    "--device-id": ["1"],
    "--log-format": ["json"],
    "--loglevel": ["DEBUG"],
    "--portrait-provider": ["detector=dlib"],
    "--portrait-wording": ["corrected"],
    "--optimize": ["near"],
    "--precision": ["full"],
    "--queue-url": ["redis://host:6379/0"],
    "--role": ["api", "--queue-url", "redis://host:6379/0"],
    "--service-token": ["name=token"],
    "--tls-certfile": [__file__, "--tls-keyfile", __file__],
    "--tls-keyfile": [__file__, "--tls-certfile", __file__],
}


@pytest.fixture(scope="module")
def attributes_read() -> set[str]:
    """The name of every attribute that the package reads anywhere."""
    package = Path(__file__).parents[2] / "sdapi"
    trees = [ast.parse(path.read_text()) for path in package.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.acts], ids=lambda flag: flag.name)
def test_what_an_acting_flag_sets_is_read_somewhere(flag: Flag, attributes_read: set[str]):
    if flag.help.startswith("accepted: "):  # what it asks for is so without it
        return
    arguments = [flag.name, *VALID.get(flag.name, SAMPLES[flag.kind])]
    plain, changed = (settings_from(parse(line, {}), Path("/srv")) for line in ([], arguments))
    names = set(Settings.__slots__) - {"flag_values"}
    differing = {name for name in names if getattr(plain, name) != getattr(changed, name)}
    if differing:
        assert differing & attributes_read
        return
    launcher = (Path(__file__).parents[2] / name for name in ("launch.py", "sdapi/cli.py"))
    program = "".join(path.read_text() for path in launcher)
    assert f'"{flag.dest}"' in program or f'"{flag.name}"' in program


def test_a_flag_that_is_not_built_yet_says_so():
    (warning,) = parse(["--download-sd-model"], {}).warnings()
    assert warning.startswith("--download-sd-model has no effect: not built yet")
