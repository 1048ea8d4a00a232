import ast
from pathlib import Path

import pytest

from sdapi.flags import BY_DEST, FLAGS, Flag, Kind, parse
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
    package = Path(__file__).parents[3] / "sdapi"
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
    launcher = (Path(__file__).parents[3] / name for name in ("launch.py", "sdapi/cli.py"))
    program = "".join(path.read_text() for path in launcher)
    assert f'"{flag.dest}"' in program or f'"{flag.name}"' in program
