"""What this process was started with: `Settings`, made once from the flags and never changed.

What clients may change while the server runs are options, not settings.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sdapi.flags import BY_DEST, OBJECT_STORE_HOSTS, SECRETS, WEBUI_FLAGS, Kind, ParsedFlags
from sdapi.object_url import SCHEMES, ObjectUrl

MODELS = "models"
#: seven days: the longest that a signature of version 4 is valid
MAX_SIGNED_S = 604_800
DEFAULT_PORT = 7860
#: the folder of each kind of auxiliary model, by the name that folder has below models/
AUXILIARY_FOLDERS: Mapping[str, str] = {
    "ESRGAN": "esrgan_models_path",
    "BSRGAN": "bsrgan_models_path",
    "RealESRGAN": "realesrgan_models_path",
    "DAT": "dat_models_path",
    "LDSR": "ldsr_models_path",
    "ScuNET": "scunet_models_path",
    "SwinIR": "swinir_models_path",
    "GFPGAN": "gfpgan_models_path",
    "Codeformer": "codeformer_models_path",
}


class SettingsError(ValueError):
    """Flags that are each readable but cannot work; the text is for the person who typed them."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder for results; `oss` is the object-store prefix it stands for, if any.

    With `folder` the path is only a name, which clients use: the files lie in that folder.
    """

    path: Path
    oss: str | None = None
    folder: Path | None = None

    @property
    def on_disk(self) -> Path:
        """Where the files are."""
        return self.folder or self.path


def _auxiliary_folders() -> dict[str, Path]:
    return {name: Path(MODELS, name) for name in AUXILIARY_FOLDERS}


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the process was told at start. Only `data_dir` has no default.

    A relative path is below `data_dir`, and one that starts with `models/` below `models_dir`;
    after construction every path is absolute.
    """

    data_dir: Path
    models_dir: Path = Path(MODELS)

    ckpt: str | None = None
    checkpoint_dirs: tuple[Path, ...] = (Path(MODELS, "Stable-diffusion"),)
    vae_dirs: tuple[Path, ...] = (Path(MODELS, "VAE"),)
    vae_path: Path | None = None
    vae_approx_dir: Path = Path(MODELS, "VAE-approx")
    lora_dirs: tuple[Path, ...] = (Path(MODELS, "Lora"), Path(MODELS, "LyCORIS"))
    embeddings_dir: Path = Path("embeddings")
    hypernetwork_dir: Path = Path(MODELS, "hypernetworks")
    controlnet_dirs: tuple[Path, ...] = (Path(MODELS, "ControlNet"),)
    controlnet_annotators_dir: Path = Path(MODELS, "ControlNet", "annotators")
    controlnet_preprocessor_cache_size: int = 16
    clip_models_dir: Path = Path(MODELS, "CLIP")
    auxiliary_dirs: Mapping[str, Path] = field(default_factory=_auxiliary_folders)
    styles_files: tuple[Path, ...] = (Path("styles.csv"),)
    options_file: Path = Path("config.json")

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    subpath: str = ""
    tls_keyfile: Path | None = None
    tls_certfile: Path | None = None
    keep_alive_s: int = 30
    shutdown_timeout_s: float = 30.0
    max_body_bytes: int = 256 << 20
    queue_limit: int = 1000
    #: of a device's time, for training while jobs want it too; above 0, below 1
    train_share: float = 0.25
    cors_origins: tuple[str, ...] = ()
    cors_origins_regex: str | None = None

    api_auth: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    token: str | None = field(default=None, repr=False)
    service_tokens: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    #: `name` or `name:sync`, beside those of the service files
    services: tuple[str, ...] = ()
    service_files: tuple[Path, ...] = ()
    #: all, api (no worker) or worker (no queue addresses)
    role: str = "all"
    #: Redis of the queue; SQLite in the data directory when None
    queue_url: str | None = field(default=None, repr=False)
    #: how long the answer that nothing came in time is held back
    queue_hold_s: float = 0.25

    webhook_secret: str | None = field(default=None, repr=False)
    allow_http_webhooks: bool = False

    mounts: tuple[Mount, ...] = ()
    allow_save_dirs: tuple[Path, ...] = ()
    allow_oss: tuple[str, ...] = ()
    #: how long links to results are valid; 0 makes none
    sign_urls_s: int = 0
    #: how long a request waits for its uploads before they are pending
    upload_timeout_s: float = 30.0
    #: delete a mount's files once they are uploaded
    drop_uploaded: bool = False
    outbox_bytes: int = 10 << 30
    object_cache_bytes: int = 50 << 30
    allow_private_urls: bool = False
    allow_url_hosts: tuple[str, ...] = (OBJECT_STORE_HOSTS,)

    portrait: bool = True
    #: role -> name of the face provider to use; see `portrait.faces.providers`
    portrait_providers: Mapping[str, str] = field(default_factory=dict[str, str])
    #: 0 lets the number of cores decide
    portrait_processes: int = 0
    portrait_keep_uploads_days: float = 30.0
    portrait_wording: str = "original"
    #: checkpoints by any of their names; None lets what is there decide
    portrait_checkpoint: str | None = None
    portrait_checkpoint_xl: str | None = None
    portrait_checkpoint_anime: str | None = None
    #: side of the square that portraits are drawn at; 0: as the checkpoint says
    portrait_native_size: int = 0
    #: web UI that draws portraits; None for this server
    portrait_url: str | None = None
    portrait_authorization: str | None = field(default=None, repr=False)

    no_hashing: bool = False
    no_half: bool = False
    no_half_vae: bool = False
    no_half_controlnet: bool = False
    upcast_sampling: bool = False
    opt_channelslast: bool = False
    precision: str = "autocast"
    medvram: bool = False
    medvram_sdxl: bool = False
    lowvram: bool = False
    disable_nan_check: bool = False
    optimize: str = "exact"
    use_cpu: tuple[str, ...] = ()
    device_id: str | None = None
    devices: tuple[str, ...] = ()
    model_cache_bytes: int | None = None
    skip_load_model_at_start: bool = False
    download_sd_model: bool = False
    download_annotators: bool = False

    api_log: bool = False
    time_log: bool = False
    log_level: str = "INFO"
    log_format: str = "auto"

    webui: bool = True
    api_server_stop: bool = False
    #: load only the extensions that are part of the server
    disable_extensions: bool = False
    hide_ui_dir_config: bool = False
    freeze_settings: bool = False
    freeze_settings_in_sections: tuple[str, ...] = ()
    freeze_specific_settings: tuple[str, ...] = ()
    filenames_max_length: int = 128
    unix_filenames_sanitization: bool = False
    no_prompt_history: bool = False

    #: values of the flags as given, for `cmd_flags`; empty when not started from a command line
    flag_values: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)

    def __post_init__(self) -> None:
        """Make every path absolute; see the class."""
        set_field = object.__setattr__
        set_field(self, "data_dir", Path(os.path.abspath(self.data_dir)))
        set_field(self, "models_dir", self.data_dir / self.models_dir)
        for each in fields(self):
            if each.name not in ("data_dir", "models_dir", "flag_values"):
                set_field(self, each.name, self._anchored(getattr(self, each.name)))

    def _anchored(self, value: Any) -> Any:
        if isinstance(value, Path):
            return self.below_data(value)
        if isinstance(value, Mount):
            return replace(value, path=self.below_data(value.path))
        if isinstance(value, tuple):
            return _each_path_once(tuple(self._anchored(one) for one in value))
        if isinstance(value, dict):
            return {key: self._anchored(one) for key, one in value.items()}
        return value

    def below_data(self, path: str | Path) -> Path:
        """Where a path of an option or a flag's default lies; an absolute one stays as it is."""
        parts = Path(path).parts
        if parts[:1] == (MODELS,):
            return self.models_dir.joinpath(*parts[1:])
        return self.data_dir / path

    @property
    def outputs_dir(self) -> Path:
        """Where pictures go unless options or requests say otherwise."""
        return self.data_dir / "outputs"

    @property
    def fonts_dir(self) -> Path:
        """Where option `font` is looked for, beside the system's own fonts."""
        return self.data_dir / "fonts"

    @property
    def state_file(self) -> Path:
        """The database: the queue's items, and the portraits' accounts, jobs and models."""
        return self.data_dir / "sdapi.db"

    @property
    def outbox_dir(self) -> Path:
        """Where files wait for their upload, and the record of them."""
        return self.data_dir / "outbox"

    @property
    def portrait_dir(self) -> Path:
        """Where the files of trained portrait models lie."""
        return self.data_dir / "portrait"

    @property
    def own_places(self) -> tuple[Path, ...]:
        """What the server keeps for itself: no request writes there, and no page shows it."""
        return (
            self.models_dir,
            self.embeddings_dir,
            self.data_dir / "cache",
            self.data_dir / "extensions",
            self.outbox_dir,
            self.portrait_dir,
            self.state_file,
            self.options_file,
            *self.styles_files,
        )

    @property
    def allowed_roots(self) -> tuple[Path, ...]:
        """Folders below which a request may name a path to write to."""
        mounts = tuple(mount.on_disk for mount in self.mounts)
        return (self.data_dir, self.outputs_dir, *mounts, *self.allow_save_dirs)

    def cmd_flags(self) -> dict[str, Any]:
        """The answer of `GET /sdapi/v1/cmd-flags`: the webui's flags, then any other one given.

        Paths are absolute; a flag without default is a string or null, as the reference has it.
        Credentials are not shown.
        """
        others = [BY_DEST[dest] for dest in self.flag_values if BY_DEST[dest] not in WEBUI_FLAGS]
        shown: dict[str, Any] = {}
        for flag in (*WEBUI_FLAGS, *others):
            if flag.dest == "exit":  # read by the launcher, which the reference leaves out
                continue
            value = self.flag_values.get(flag.dest, flag.default)
            if flag.dest in SECRETS:
                value = None if not value else "***"
            elif flag.dest == "data_dir":
                value = str(self.data_dir)
            elif value is not None and flag.kind is Kind.PATH:
                value = str(self.below_data(value))
            elif value is not None and flag.kind is Kind.PATHS:
                value = [str(self.below_data(one)) for one in value]
            shown[flag.dest] = str(value) if flag.default is None and value is not None else value
        return shown

    def on_disk(self, path: Path) -> Path:
        """Where an absolute path lies; what is below a mount's name lies in its folder."""
        for mount in self.mounts:
            if mount.folder is not None and path.is_relative_to(mount.path):
                return mount.folder / path.relative_to(mount.path)
        return path

    @classmethod
    def from_flags(cls, flags: ParsedFlags, base_dir: Path) -> "Settings":
        """Settings of a command line; its relative paths are below `base_dir`."""
        flags = _with_absolute_paths(flags, base_dir)
        given = {dest: flags[dest] for dest in BY_DEST if dest in flags.given}
        return cls(
            **_folders(flags),
            **_network(flags),
            **_access(flags, base_dir),
            **_storage(flags, base_dir),
            **_portrait(flags),
            **_model_use(flags),
            **_queue(flags),
            **_behaviour(flags),
            flag_values=given,
        )


def _with_absolute_paths(flags: ParsedFlags, base_dir: Path) -> ParsedFlags:
    """The same flags, every given path absolute; defaults stay relative to the data directory."""
    values = dict(flags.values)
    for dest in flags.given | {"data_dir"}:
        flag = BY_DEST[dest]
        if flag.kind is Kind.PATH:
            values[dest] = str(_path(values[dest], base_dir))
        elif flag.kind is Kind.PATHS:
            own = values[dest][len(flag.default) :]
            values[dest] = [*flag.default, *(str(_path(one, base_dir)) for one in own)]
    return ParsedFlags(values, flags.given)


def _each_path_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """A folder that is both a default and given is looked into once."""
    is_paths = all(isinstance(value, Path) for value in values)
    return tuple(dict.fromkeys(values)) if is_paths else values


def _path(text: str, base_dir: Path) -> Path:
    return base_dir / Path(text).expanduser()


def _paths(*texts: str | None) -> tuple[Path, ...]:
    return tuple(Path(text) for text in texts if text)


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _folders(flags: ParsedFlags) -> dict[str, Any]:
    annotators = flags["controlnet_annotator_models_path"] or f"{MODELS}/ControlNet/annotators"
    return {
        "data_dir": Path(flags["data_dir"]),
        "models_dir": Path(flags["models_dir"] or MODELS),
        "ckpt": flags["ckpt"],
        "checkpoint_dirs": _paths(f"{MODELS}/Stable-diffusion", flags["ckpt_dir"]),
        "vae_dirs": _paths(f"{MODELS}/VAE", flags["vae_dir"]),
        "vae_path": Path(flags["vae_path"]) if flags["vae_path"] else None,
        "lora_dirs": _paths(flags["lora_dir"], flags["lyco_dir_backcompat"]),
        "embeddings_dir": Path(flags["embeddings_dir"]),
        "hypernetwork_dir": Path(flags["hypernetwork_dir"]),
        "controlnet_dirs": _paths(f"{MODELS}/ControlNet", flags["controlnet_dir"]),
        "controlnet_annotators_dir": Path(annotators),
        "clip_models_dir": Path(flags["clip_models_path"] or f"{MODELS}/CLIP"),
        "auxiliary_dirs": {name: Path(flags[dest]) for name, dest in AUXILIARY_FOLDERS.items()},
        "styles_files": _paths(*flags["styles_file"]),
        "options_file": Path(flags["ui_settings_file"]),
    }


def _network(flags: ParsedFlags) -> dict[str, Any]:
    subpath = (flags["subpath"] or "").strip("/")
    key, certificate = _tls_files(flags)
    return {
        "host": flags["server_name"] or ("0.0.0.0" if flags["listen"] else "127.0.0.1"),
        "port": _port(flags["port"]),
        "subpath": f"/{subpath}" if subpath else "",
        "tls_keyfile": key,
        "tls_certfile": certificate,
        "keep_alive_s": _at_least(0, flags, "timeout_keep_alive"),
        "shutdown_timeout_s": float(_at_least(0, flags, "shutdown_timeout")),
        "max_body_bytes": int(_above_zero(flags, "max_body_mb") * (1 << 20)),
        "queue_limit": _at_least(0, flags, "queue_limit"),
        "train_share": _share(flags, "train_share"),
        "cors_origins": _list(flags["cors_allow_origins"]),
        "cors_origins_regex": _regex(flags, "cors_allow_origins_regex"),
    }


def _access(flags: ParsedFlags, base_dir: Path) -> dict[str, Any]:
    return {
        "api_auth": tuple(_user(entry) for entry in _list(flags["api_auth"])),
        "token": _token(flags["token"]),
        "service_tokens": dict(_service_token(entry) for entry in flags["service_token"]),
        "webhook_secret": flags["webhook_secret"] or None,
        "allow_http_webhooks": flags["allow_http_webhooks"],
        "allow_private_urls": flags["allow_private_urls"],
        "allow_url_hosts": tuple(host.lower() for host in flags["allow_url_host"]),
    }


def _storage(flags: ParsedFlags, base_dir: Path) -> dict[str, Any]:
    seconds = _at_least(0, flags, "sign_urls")
    if seconds > MAX_SIGNED_S:
        raise SettingsError(f"--sign-urls must be at most {MAX_SIGNED_S} seconds, not {seconds}")
    return {
        "mounts": tuple(_mount(entry, base_dir) for entry in flags["mount"]),
        "allow_save_dirs": _paths(*flags["allow_save_dir"]),
        "allow_oss": tuple(_prefix(entry, "--allow-oss", ("oss",)) for entry in flags["allow_oss"]),
        "sign_urls_s": seconds,
        "upload_timeout_s": _above_zero(flags, "upload_timeout"),
        "drop_uploaded": flags["drop_uploaded"],
        "outbox_bytes": int(_above_zero(flags, "outbox_gb") * (1 << 30)),
        "object_cache_bytes": int(_above_zero(flags, "object_cache_gb") * (1 << 30)),
    }


def _queue(flags: ParsedFlags) -> dict[str, Any]:
    url, role = flags["queue_url"], flags["role"]
    if url is not None and not re.match(r"(redis|rediss|unix)://", url):
        raise SettingsError("--queue-url is of the form redis://[user:password@]host:port/0")
    if role != "all" and url is None:
        raise SettingsError(f"--role {role} needs a queue that others share: --queue-url redis://…")
    return {
        "services": tuple(flags["service"]),
        "service_files": _paths(*flags["eas_config"]),
        "role": role,
        "queue_url": url,
        "queue_hold_s": _at_least(0, flags, "queue_hold_ms") / 1000,
    }


def _portrait(flags: ParsedFlags) -> dict[str, Any]:
    return {
        "portrait": not flags["no_portrait"],
        "portrait_providers": dict(_provider(entry) for entry in flags["portrait_provider"]),
        "portrait_processes": _at_least(0, flags, "portrait_processes"),
        "portrait_keep_uploads_days": _at_least(0, flags, "portrait_keep_uploads_days"),
        "portrait_wording": flags["portrait_wording"],
        "portrait_checkpoint": flags["portrait_checkpoint"],
        "portrait_checkpoint_xl": flags["portrait_checkpoint_xl"],
        "portrait_checkpoint_anime": flags["portrait_checkpoint_anime"],
        "portrait_native_size": _at_least(0, flags, "portrait_native_size"),
        "portrait_url": flags["portrait_url"],
        "portrait_authorization": flags["portrait_authorization"],
    }


def _model_use(flags: ParsedFlags) -> dict[str, Any]:
    gigabytes = (
        _above_zero(flags, "model_cache_gb") if flags["model_cache_gb"] is not None else None
    )
    device_id = flags["device_id"]
    if device_id is not None and not device_id.isdecimal():
        raise SettingsError(f"--device-id {device_id!r} is not a number; --devices takes names")
    return {
        **_as_given(
            flags,
            "no_hashing no_half no_half_vae no_half_controlnet upcast_sampling opt_channelslast "
            "precision medvram medvram_sdxl lowvram disable_nan_check optimize download_sd_model "
            "skip_load_model_at_start controlnet_preprocessor_cache_size download_annotators",
        ),
        "use_cpu": tuple(part.lower() for part in flags["use_cpu"]),
        "device_id": device_id,
        "devices": _list(flags["devices"]),
        "model_cache_bytes": None if gigabytes is None else int(gigabytes * (1 << 30)),
    }


def _behaviour(flags: ParsedFlags) -> dict[str, Any]:
    return {
        **_as_given(
            flags,
            "api_log time_log log_format hide_ui_dir_config freeze_settings filenames_max_length "
            "unix_filenames_sanitization no_prompt_history",
        ),
        "log_level": _log_level(flags["loglevel"]),
        "webui": not flags["nowebui"],
        "api_server_stop": flags["api_server_stop"] or flags["add_stop_route"],
        "disable_extensions": any(
            flags[name]
            for name in (
                "disable_extensions",
                "disable_extra_extensions",
                "disable_all_extensions",
            )
        ),
        "freeze_settings_in_sections": _list(flags["freeze_settings_in_sections"]),
        "freeze_specific_settings": _list(flags["freeze_specific_settings"]),
    }


def _as_given(flags: ParsedFlags, names: str) -> dict[str, Any]:
    return {name: flags[name] for name in names.split()}


def _at_least(minimum: int, flags: ParsedFlags, dest: str) -> Any:
    if not flags[dest] >= minimum:  # so that NaN fails too
        raise SettingsError(f"{BY_DEST[dest].name} must be at least {minimum}, not {flags[dest]}")
    return flags[dest]


def _above_zero(flags: ParsedFlags, dest: str) -> float:
    value = flags[dest]
    if not 0 < value < 1e9:
        raise SettingsError(f"{BY_DEST[dest].name} must be a number above zero, not {value}")
    return value


def _share(flags: ParsedFlags, dest: str) -> float:
    value = flags[dest]
    if not 0 < value < 1:
        raise SettingsError(f"{BY_DEST[dest].name} must be between 0 and 1, not {value}")
    return value


def _port(port: int | None) -> int:
    if port is None:
        return DEFAULT_PORT
    if not 0 <= port <= 65535:
        raise SettingsError(f"--port must be from 0 (any free one) to 65535, not {port}")
    return port


def _tls_files(flags: ParsedFlags) -> tuple[Path | None, Path | None]:
    key, certificate = flags["tls_keyfile"], flags["tls_certfile"]
    if not key and not certificate:
        return None, None
    if not key or not certificate:
        raise SettingsError("--tls-keyfile and --tls-certfile work together: give both or none")
    for name, text in (("--tls-keyfile", key), ("--tls-certfile", certificate)):
        if not Path(text).is_file():
            raise SettingsError(f"{name}: there is no file {text}")
    return Path(key), Path(certificate)


def _regex(flags: ParsedFlags, dest: str) -> str | None:
    pattern = flags[dest]
    if pattern:
        try:
            re.compile(pattern)
        except re.error as error:
            raise SettingsError(
                f"{BY_DEST[dest].name} is no regular expression: {error}"
            ) from error
    return pattern or None


def _user(entry: str) -> tuple[str, str]:
    if entry.count(":") != 1:
        raise SettingsError(
            "--api-auth takes user:password[,user:password…], one colon in each entry"
        )
    user, _, password = entry.partition(":")
    return user, password


def _token(token: str | None) -> str | None:
    if token is not None and (not token or token != token.strip()):
        raise SettingsError("--token must not be empty, nor begin or end with a space")
    return token


def _service_token(entry: str) -> tuple[str, str]:
    name, equals, token = entry.partition("=")
    if not (name and equals and token):
        raise SettingsError("--service-token takes NAME=TOKEN")
    return name, token


def _provider(entry: str) -> tuple[str, str]:
    role, equals, name = entry.partition("=")
    if not (role and equals and name):
        raise SettingsError("--portrait-provider takes ROLE=NAME, as in detector=yunet")
    return role, name


def _mount(entry: str, base_dir: Path) -> Mount:
    path, _, target = entry.partition("=")
    if not path:
        raise SettingsError(
            f"--mount {entry!r} names no folder; it takes PATH[=oss://bucket/prefix]"
        )
    return Mount(_path(path, base_dir), _prefix(target, "--mount", SCHEMES) if target else None)


def _prefix(url: str, flag: str, schemes: tuple[str, ...]) -> str:
    try:
        found = ObjectUrl.parse(url)
    except ValueError as error:
        raise SettingsError(f"{flag}: {url!r}: {error}") from error
    if found.scheme not in schemes:
        raise SettingsError(f"{flag}: {url!r} is not of the form {schemes[0]}://bucket/prefix")
    return str(found)


def _log_level(level: str | None) -> str:
    name = (level or "INFO").upper()
    known = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")
    if name not in known:
        raise SettingsError(f"--loglevel {level!r} is none of {', '.join(known)}")
    return name
