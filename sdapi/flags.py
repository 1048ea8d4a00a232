"""The command line as data: every flag of the webui and of ours, and how they are read.

Standard library only, because `launch.py` reads the command line before any package is installed.

A value comes from the command line (the webui's `COMMANDLINE_ARGS` variable is read as its
beginning), else from `SDAPI_<FLAG>` in the environment, else it is the default below. Flags that
mean something here act; the others are accepted and warn once, with the reason in their help, some
because what they ask for is not built yet.
"""

import argparse
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Never

from sdapi.errors import near_names

ENVIRONMENT_PREFIX = "SDAPI_"
COMMAND_LINE_VARIABLE = "COMMANDLINE_ARGS"
OBJECT_STORE_HOSTS = "*-internal.aliyuncs.com"


class FlagError(ValueError):
    """A command line that cannot be understood; the text is for the person who typed it."""


class Kind(Enum):
    """What a flag's value looks like."""

    SWITCH = "switch"  # given or not
    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    #: a relative default is below the data directory, a relative value below the launch folder
    PATH = "path"
    PATHS = "paths"  # repeatable; given values add to the default
    TEXTS = "texts"  # repeatable; given values add to the default
    WORDS = "words"  # one or more words after the flag
    JSON = "json"


REPEATABLE = frozenset({Kind.PATHS, Kind.TEXTS})


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag; `help` of a flag that does not act is the reason why."""

    name: str
    kind: Kind
    default: Any
    acts: bool
    help: str
    choices: tuple[str, ...] = ()

    @property
    def dest(self) -> str:
        """The attribute name, which is also the key in `GET /sdapi/v1/cmd-flags`."""
        return self.name.lstrip("-").replace("-", "_")


def _acts(name: str, kind: Kind, default: Any, help: str, choices: tuple[str, ...] = ()) -> Flag:
    return Flag(name, kind, default, True, help, choices)


def _ignored(name: str, kind: Kind, default: Any, why: str) -> Flag:
    return Flag(name, kind, default, False, why)


def _later(name: str, kind: Kind, default: Any, help: str, choices: tuple[str, ...] = ()) -> Flag:
    """A flag whose meaning is not built yet; `Settings` holds its value already."""
    return Flag(name, kind, default, False, f"not built yet ({help})", choices)


_S, _T, _I, _P = Kind.SWITCH, Kind.TEXT, Kind.INTEGER, Kind.PATH

_NO_GRADIO = "there is no Gradio page here"
_ONE_ATTENTION = "attention always runs on torch's fused kernels"
_NO_TUNNEL = "no tunnel is opened; put a proxy in front"
_NO_GIT = "extensions are Python packages and are not updated from here"

#: in the order of the reference's `GET /sdapi/v1/cmd-flags`
WEBUI_FLAGS = (
    _ignored("-f", _S, False, "starting as root needs no permission"),
    _ignored("--update-all-extensions", _S, False, _NO_GIT),
    _ignored("--skip-python-version-check", _S, False, "older Pythons cannot run this code"),
    _acts("--skip-torch-cuda-test", _S, False, "accepted: without a GPU the CPU is used anyway"),
    _ignored("--reinstall-xformers", _S, False, "xformers is not used"),
    _acts("--reinstall-torch", _S, False, "install torch again before starting"),
    _ignored("--update-check", _S, False, "no update service is asked"),
    _ignored("--test-server", _S, False, "use --test"),
    _ignored("--log-startup", _S, False, "the start is too short to log"),
    _acts("--skip-prepare-environment", _S, False, "the same as --skip-install"),
    _acts("--skip-install", _S, False, "install nothing; still enter an existing venv/"),
    _ignored("--dump-sysinfo", _S, False, "see GET /internal/sysinfo"),
    _acts("--loglevel", _T, None, "DEBUG, INFO (default), WARNING, ERROR"),
    _acts("--do-not-download-clip", _S, False, "accepted: nothing is downloaded unless asked for"),
    _acts(
        "--data-dir", _P, ".", "folder of models/, outputs/, embeddings/, config.json, the database"
    ),
    _acts(
        "--models-dir", _P, None, "folder of all models (default: models/ in the data directory)"
    ),
    _ignored(
        "--config", _P, "configs/v1-inference.yaml", "a .yaml beside a checkpoint describes it"
    ),
    _acts("--ckpt", _T, None, "checkpoint to start with: a path, or a name from the folders"),
    _acts("--ckpt-dir", _P, None, "one more folder of checkpoints"),
    _acts("--vae-dir", _P, None, "one more folder of VAEs"),
    _ignored("--gfpgan-dir", _P, "GFPGAN", "put the weights into models/GFPGAN"),
    _ignored("--gfpgan-model", _T, None, "put the weights into models/GFPGAN"),
    _acts("--no-half", _S, False, "compute in float32"),
    _acts("--no-half-vae", _S, False, "run the VAE in float32"),
    _ignored("--no-progressbar-hiding", _S, False, _NO_GRADIO),
    _ignored("--max-batch-count", _I, 16, _NO_GRADIO),
    _acts("--embeddings-dir", _P, "embeddings", "folder of textual inversion embeddings"),
    _ignored(
        "--textual-inversion-templates-dir",
        _P,
        "textual_inversion_templates",
        "no template training",
    ),
    _acts("--hypernetwork-dir", _P, "models/hypernetworks", "folder of hypernetworks"),
    _ignored("--localizations-dir", _P, "localizations", _NO_GRADIO),
    _ignored("--allow-code", _S, False, "no code from a request is ever run"),
    _acts("--medvram", _S, False, "keep only the part of the model at work on the GPU"),
    _acts("--medvram-sdxl", _S, False, "--medvram, for SDXL checkpoints only"),
    _acts("--lowvram", _S, False, "like --medvram, and the UNet block by block"),
    _ignored("--lowram", _S, False, "files are mapped, not read into memory"),
    _ignored("--always-batch-cond-uncond", _S, False, "use the option batch_cond_uncond"),
    _ignored("--unload-gfpgan", _S, False, "the model cache evicts what is idle"),
    _acts("--precision", _T, "autocast", "precision of the model", ("full", "half", "autocast")),
    _acts("--upcast-sampling", _S, False, "accepted: latents are always float32"),
    _ignored("--share", _S, False, _NO_TUNNEL),
    _ignored("--ngrok", _T, None, _NO_TUNNEL),
    _ignored("--ngrok-region", _T, "", _NO_TUNNEL),
    _ignored("--ngrok-options", Kind.JSON, {}, _NO_TUNNEL),
    _ignored("--enable-insecure-extension-access", _S, False, _NO_GIT),
    _acts("--codeformer-models-path", _P, "models/Codeformer", "folder of CodeFormer weights"),
    _acts("--gfpgan-models-path", _P, "models/GFPGAN", "folder of GFPGAN weights"),
    _acts("--esrgan-models-path", _P, "models/ESRGAN", "folder of ESRGAN upscalers"),
    _acts("--bsrgan-models-path", _P, "models/BSRGAN", "folder of BSRGAN upscalers"),
    _acts("--realesrgan-models-path", _P, "models/RealESRGAN", "folder of RealESRGAN upscalers"),
    _acts("--dat-models-path", _P, "models/DAT", "folder of DAT upscalers"),
    _later("--clip-models-path", _P, None, "folder of the interrogator's CLIP weights"),
    _ignored("--xformers", _S, False, _ONE_ATTENTION),
    _ignored("--force-enable-xformers", _S, False, _ONE_ATTENTION),
    _ignored("--xformers-flash-attention", _S, False, _ONE_ATTENTION),
    _ignored("--deepdanbooru", _S, False, "interrogators are found by their weights"),
    _ignored("--opt-split-attention", _S, False, _ONE_ATTENTION),
    _ignored("--opt-sub-quad-attention", _S, False, _ONE_ATTENTION),
    _ignored("--sub-quad-q-chunk-size", _I, 1024, _ONE_ATTENTION),
    _ignored("--sub-quad-kv-chunk-size", _I, None, _ONE_ATTENTION),
    _ignored("--sub-quad-chunk-threshold", _I, None, _ONE_ATTENTION),
    _ignored("--opt-split-attention-invokeai", _S, False, _ONE_ATTENTION),
    _ignored("--opt-split-attention-v1", _S, False, _ONE_ATTENTION),
    _acts("--opt-sdp-attention", _S, False, "accepted: it is what always runs"),
    _acts("--opt-sdp-no-mem-attention", _S, False, "accepted: fused attention always runs"),
    _ignored("--disable-opt-split-attention", _S, False, _ONE_ATTENTION),
    _acts("--disable-nan-check", _S, False, "do not look for NaNs in results"),
    _acts("--use-cpu", Kind.WORDS, [], "parts to run on the CPU; `all` for everything"),
    _ignored("--use-ipex", _S, False, "CPU and CUDA only"),
    _ignored("--disable-model-loading-ram-optimization", _S, False, "files are mapped anyway"),
    _acts("--listen", _S, False, "listen on every address, not only on loopback"),
    _acts("--port", _I, None, "port to listen on (7860)"),
    _ignored("--show-negative-prompt", _S, False, _NO_GRADIO),
    _ignored("--ui-config-file", _P, "ui-config.json", _NO_GRADIO),
    _acts("--hide-ui-dir-config", _S, False, "folders cannot be changed through options"),
    _acts("--freeze-settings", _S, False, "requests cannot change options"),
    _acts(
        "--freeze-settings-in-sections", _T, None, "sections (a,b) whose options cannot be changed"
    ),
    _acts("--freeze-specific-settings", _T, None, "options (a,b) that cannot be changed"),
    _acts("--ui-settings-file", _P, "config.json", "file of the options"),
    _ignored("--gradio-debug", _S, False, _NO_GRADIO),
    _ignored("--gradio-auth", _T, None, "it protects nothing here, use --api-auth or --token"),
    _ignored("--gradio-auth-path", _P, None, "it protects nothing here, use --api-auth or --token"),
    _ignored("--gradio-img2img-tool", _T, None, _NO_GRADIO),
    _ignored("--gradio-inpaint-tool", _T, None, _NO_GRADIO),
    _ignored("--gradio-allowed-path", Kind.PATHS, ["."], _NO_GRADIO + "; see --allow-save-dir"),
    _acts("--opt-channelslast", _S, False, "keep convolution weights channels last"),
    _acts(
        "--styles-file", Kind.PATHS, ["styles.csv"], "styles file, wildcards allowed (repeatable)"
    ),
    _ignored("--autolaunch", _S, False, "no browser is opened"),
    _ignored("--theme", _T, None, _NO_GRADIO),
    _ignored("--use-textbox-seed", _S, False, _NO_GRADIO),
    _ignored("--disable-console-progressbars", _S, False, "there are none"),
    _ignored("--enable-console-prompts", _S, False, "prompts are not logged"),
    _acts("--vae-path", _P, None, "VAE used wherever the option sd_vae is Automatic"),
    _ignored("--disable-safe-unpickle", _S, False, "pickles are only ever read as plain weights"),
    _acts("--api", _S, False, "accepted: the API is always on"),
    _acts("--api-auth", _T, None, "user:password[,user:password…] for basic authentication"),
    _acts("--api-log", _S, False, "log one line per API request"),
    _acts("--nowebui", _S, False, "no page at /, only the API"),
    _ignored("--ui-debug-mode", _S, False, _NO_GRADIO),
    _acts("--device-id", _T, None, "number of the CUDA device"),
    _ignored("--administrator", _S, False, "starting as administrator needs no permission"),
    _acts("--cors-allow-origins", _T, None, "allowed origins (a,b) of browser requests"),
    _acts("--cors-allow-origins-regex", _T, None, "the same, as a regular expression"),
    _acts("--tls-keyfile", _P, None, "private key; serves https together with --tls-certfile"),
    _acts("--tls-certfile", _P, None, "certificate; serves https together with --tls-keyfile"),
    _ignored("--disable-tls-verify", _S, None, "the server does not call itself"),
    _acts("--server-name", _T, None, "address to listen on (127.0.0.1)"),
    _ignored("--gradio-queue", _S, True, _NO_GRADIO),
    _ignored("--no-gradio-queue", _S, False, _NO_GRADIO),
    _acts("--skip-version-check", _S, False, "accepted: versions are pinned, nothing is checked"),
    _acts("--no-hashing", _S, False, "do not compute sha256 of checkpoints"),
    _acts("--no-download-sd-model", _S, False, "accepted: nothing is downloaded unless asked for"),
    _acts("--subpath", _T, None, "path prefix under which a proxy shows this server"),
    _acts("--add-stop-route", _S, False, "old name of --api-server-stop"),
    _acts("--api-server-stop", _S, False, "the API may stop and restart the server"),
    _acts("--timeout-keep-alive", _I, 30, "seconds an idle connection is kept"),
    _acts("--disable-all-extensions", _S, False, "load built-in extensions only"),
    _acts("--disable-extra-extensions", _S, False, "load built-in extensions only"),
    _acts("--skip-load-model-at-start", _S, False, "load the checkpoint with the first request"),
    _later(
        "--unix-filenames-sanitization", _S, False, "replace only what Unix forbids in file names"
    ),
    _later("--filenames-max-length", _I, 128, "longest name of a saved file"),
    _acts("--no-prompt-history", _S, False, "do not write params.txt"),
    _ignored("--ldsr-models-path", _P, "models/LDSR", "LDSR is not among the upscalers here"),
    _acts("--lora-dir", _P, "models/Lora", "folder of LoRAs"),
    _acts("--lyco-dir-backcompat", _P, "models/LyCORIS", "second folder of LoRAs"),
    _acts("--scunet-models-path", _P, "models/ScuNET", "folder of ScuNET upscalers"),
    _acts("--swinir-models-path", _P, "models/SwinIR", "folder of SwinIR upscalers"),
    _acts("--exit", _S, False, "prepare the environment, then exit"),
)

CONTROLNET_FLAGS = (
    _acts("--controlnet-dir", _P, None, "one more folder of ControlNet models"),
    _acts("--controlnet-annotator-models-path", _P, None, "folder of preprocessor weights"),
    _acts("--no-half-controlnet", _S, False, "run ControlNet models in float32"),
    _acts("--controlnet-preprocessor-cache-size", _I, 16, "detected maps kept in memory"),
    _acts("--download-annotators", _S, False, "fetch weights of preprocessors that are missing"),
    _ignored("--controlnet-loglevel", _T, "INFO", "use --loglevel"),
)

PAI_FLAGS = (
    _ignored("--filebrowser", _S, False, "files are not browsed through the server"),
    _acts(
        "--sd-dynamic-cache",
        _S,
        False,
        "accepted: several checkpoints are always kept, see --model-cache-gb",
    ),
    _acts("--time-log", _S, False, "log the phases of each request"),
)

OWN_FLAGS = (
    _acts("--token", _T, None, "token every request must bring in its Authorization header"),
    _acts("--service-token", Kind.TEXTS, [], "NAME=T: an own token for one service (repeatable)"),
    _acts(
        "--webhook-secret", _T, None, "key that signs webhooks; without it requests cannot name one"
    ),
    _acts("--allow-http-webhooks", _S, False, "webhooks may go over http, not only https"),
    _acts("--shutdown-timeout", Kind.NUMBER, 30.0, "seconds the running job gets to finish"),
    _acts(
        "--mount", Kind.TEXTS, [], "PATH[=oss://bucket/prefix]: a folder for results (repeatable)"
    ),
    _acts("--allow-save-dir", Kind.PATHS, [], "folder a request may save into (repeatable)"),
    _acts(
        "--allow-oss",
        Kind.TEXTS,
        [],
        "oss://bucket/prefix that requests may save into and read from (repeatable)",
    ),
    _acts("--sign-urls", _I, 0, "seconds that links to results are valid (0: make none)"),
    _acts("--upload-timeout", Kind.NUMBER, 30.0, "seconds a request waits for its uploads"),
    _acts("--drop-uploaded", _S, False, "delete a mount's files here once they are uploaded"),
    _acts("--outbox-gb", Kind.NUMBER, 10.0, "GiB that may wait for an object store"),
    _acts("--object-cache-gb", Kind.NUMBER, 50.0, "GiB on disk for models from object stores"),
    _acts("--allow-private-urls", _S, False, "fetch URLs from private addresses too"),
    _acts(
        "--allow-url-host",
        Kind.TEXTS,
        [OBJECT_STORE_HOSTS],
        "host pattern fetched even when its address is private (repeatable)",
    ),
    _acts("--eas-config", Kind.PATHS, [], "service JSON of PAI-EAS to serve (repeatable)"),
    _acts("--service", Kind.TEXTS, [], "NAME[:sync|async]: a service of its own (repeatable)"),
    _acts("--queue-url", _T, None, "redis://host:port/0: the queue of several servers (SQLite)"),
    _acts(
        "--role",
        _T,
        "all",
        "api: queue addresses, no device; worker: the other way round",
        ("all", "api", "worker"),
    ),
    _acts(
        "--queue-hold-ms",
        _I,
        250,
        "milliseconds that a queue's answer 'nothing came in time' is held back",
    ),
    _acts("--no-portrait", _S, False, "leave the portrait services out"),
    _acts(
        "--portrait-provider",
        Kind.TEXTS,
        [],
        "ROLE=NAME: a face provider other than the first that is there (repeatable)",
    ),
    _acts("--portrait-processes", _I, 0, "processes that look at faces (0: by the cores)"),
    _acts(
        "--portrait-keep-uploads-days",
        Kind.NUMBER,
        30.0,
        "days that photos sent for training are kept (0: not at all)",
    ),
    _acts(
        "--portrait-wording",
        _T,
        "original",
        "corrected: error texts with fewer misspellings",
        ("original", "corrected"),
    ),
    _acts("--portrait-checkpoint", _T, None, "checkpoint of portraits (the server's own)"),
    _acts("--portrait-checkpoint-xl", _T, None, "SDXL checkpoint of portraits (the first)"),
    _acts("--portrait-checkpoint-anime", _T, None, "checkpoint of style Anime (none)"),
    _acts("--portrait-native-size", _I, 0, "pixels portraits are drawn at (the checkpoint's)"),
    _acts("--portrait-url", _T, None, "web UI that draws portraits, when it is not this server"),
    _acts("--portrait-authorization", _T, None, "value of the Authorization header for that"),
    _acts("--queue-limit", _I, 1000, "jobs that may wait; more are answered 429"),
    _acts("--train-share", Kind.NUMBER, 0.25, "share of a device that training gets beside jobs"),
    _acts("--max-body-mb", Kind.NUMBER, 256.0, "largest request body in MiB"),
    _acts("--model-cache-gb", Kind.NUMBER, None, "GiB of models kept in memory (automatic)"),
    _acts("--devices", _T, None, "devices to run jobs on: cuda:0,cuda:1 or cpu (automatic)"),
    _acts(
        "--optimize",
        _T,
        "exact",
        "near: compile the UNet; faster, not bit-identical",
        ("exact", "near"),
    ),
    _later("--download-sd-model", _S, False, "fetch the SD 1.5 checkpoint when there is none"),
    _acts("--disable-extensions", _S, False, "load built-in extensions only"),
    _acts(
        "--log-format",
        _T,
        "auto",
        "auto: plain on a terminal, else JSON",
        ("auto", "plain", "json"),
    ),
    _acts(
        "--torch-command", _T, None, "how to install torch: 'pip install torch==… --index-url …'"
    ),
    _acts("--test", _S, False, "run the tests; what follows is handed to pytest"),
    _acts("--version", _S, False, "print the version"),
)

FLAGS = WEBUI_FLAGS + CONTROLNET_FLAGS + PAI_FLAGS + OWN_FLAGS
BY_DEST: Mapping[str, Flag] = {flag.dest: flag for flag in FLAGS}
#: they say what to do once, so the environment, which lasts, cannot hold them
COMMANDS = frozenset({"f", "exit", "test", "version"})
#: the word that begins an operator's command instead of a server
QUEUE_COMMAND = "queue"
#: never shown, not even to a caller who may read everything else
SECRETS = frozenset(
    {
        *("api_auth", "gradio_auth", "ngrok", "portrait_authorization", "queue_url"),
        *("service_token", "token", "webhook_secret"),
    }
)


@dataclass(frozen=True, slots=True)
class ParsedFlags:
    """Every flag's value by its destination name, and which of them somebody gave."""

    values: Mapping[str, Any]
    given: frozenset[str]

    def __getitem__(self, dest: str) -> Any:
        return self.values[dest]

    def warnings(self) -> list[str]:
        """One sentence for each given flag that has no effect."""
        idle = [flag for flag in FLAGS if flag.dest in self.given and not flag.acts]
        return [f"{flag.name} has no effect: {flag.help}" for flag in idle]


def split_command(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of `queue …` at the beginning, and the flags after them; usually no words."""
    count = 0
    if argv[:1] == [QUEUE_COMMAND]:
        count = next((n for n, word in enumerate(argv) if word.startswith("-")), len(argv))
    return list(argv[:count]), list(argv[count:])


def parse(
    argv: Sequence[str], environ: Mapping[str, str], file_arguments: Sequence[str] = ()
) -> ParsedFlags:
    """Read the command line and the environment; raises FlagError with a sentence for the user.

    `file_arguments` are those of service files, which count less than either.
    """
    from_files = _parse_command_line(list(file_arguments))
    typed = _parse_command_line([*_shared_arguments(environ), *argv])
    given = from_files | _parse_environment(environ) | typed
    values: dict[str, Any] = {}
    for flag in FLAGS:
        values[flag.dest] = given.get(flag.dest, flag.default)
        if flag.kind in REPEATABLE:
            values[flag.dest] = [*flag.default, *given.get(flag.dest, [])]
    return ParsedFlags(values, frozenset(given))


def _shared_arguments(environ: Mapping[str, str]) -> list[str]:
    try:
        return shlex.split(environ.get(COMMAND_LINE_VARIABLE, ""))
    except ValueError as error:
        raise FlagError(f"{COMMAND_LINE_VARIABLE} cannot be read: {error}") from error


def _parse_command_line(arguments: list[str]) -> dict[str, Any]:
    namespace, unknown = _parser().parse_known_args(arguments)
    for argument in unknown:
        if argument.startswith("-"):
            name = argument.partition("=")[0]
            near = near_names(name, (flag.name for flag in FLAGS))
            raise FlagError(f"unknown flag {name!r}; the nearest are {near}")
    if unknown:
        raise FlagError(f"unexpected argument {unknown[0]!r}; flags start with --")
    return vars(namespace)


def _parse_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Flags from `SDAPI_<FLAG>`.

    Other variables of that prefix are let be: for a service named sdapi Kubernetes makes
    `SDAPI_SERVICE_HOST`, and an `SDAPI_PORT` that holds a URL.
    """
    found = _product_variables(environ)
    for flag in FLAGS:
        name = ENVIRONMENT_PREFIX + flag.dest.upper()
        text = environ.get(name, "").strip()
        if not text or flag.dest in COMMANDS or (flag.dest == "port" and "://" in text):
            continue
        try:
            found[flag.dest] = _from_text(flag, text)
        except ValueError as error:
            raise FlagError(f"{name}: {error}") from error
    return found


def _product_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the product's service files set for the portrait; any other `URL` is let be."""
    url = environ.get("URL", "").strip()
    if not url.startswith(("http://", "https://")) or "AUTHORIZATION" not in environ:
        return {}
    return {"portrait_url": url, "portrait_authorization": environ["AUTHORIZATION"].strip()}


def _from_text(flag: Flag, text: str) -> Any:
    if flag.choices and text not in flag.choices:
        raise ValueError(f"{text!r} is none of {', '.join(flag.choices)}")
    if flag.kind in REPEATABLE or flag.kind is Kind.WORDS:
        return [part.strip() for part in text.split(",") if part.strip()]
    return _CONVERTERS[flag.kind](text)


def _switch(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


_CONVERTERS: Mapping[Kind, Callable[[str], Any]] = {
    Kind.SWITCH: _switch,
    Kind.TEXT: str,
    Kind.INTEGER: int,
    Kind.NUMBER: float,
    Kind.PATH: str,
    Kind.JSON: json.loads,
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        raise FlagError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="launch.py",
        description="Serve the Stable Diffusion WebUI API. SDAPI_<FLAG> sets a flag as well.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    acting = parser.add_argument_group("flags")
    idle = parser.add_argument_group("flags that are accepted and have no effect")
    for flag in FLAGS:
        _add(acting if flag.acts else idle, flag)
    return parser


def _add(group: "argparse._ArgumentGroup", flag: Flag) -> None:  # pyright: ignore[reportPrivateUsage] (no public name)
    text = flag.help.replace("%", "%%")
    if flag.kind is Kind.SWITCH:
        group.add_argument(flag.name, action="store_true", dest=flag.dest, help=text)
        return
    metavar = None if flag.choices else flag.dest.rpartition("_")[2].upper()
    converter = _CONVERTERS.get(flag.kind, str)
    choices = flag.choices or None
    if flag.kind in REPEATABLE:
        group.add_argument(flag.name, action="append", dest=flag.dest, help=text, metavar=metavar)
    elif flag.kind is Kind.WORDS:
        group.add_argument(flag.name, nargs="+", dest=flag.dest, help=text, metavar=metavar)
    else:
        group.add_argument(
            flag.name, type=converter, dest=flag.dest, help=text, metavar=metavar, choices=choices
        )
