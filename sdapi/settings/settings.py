"""`Settings`: everything that a process was told at start."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sdapi.flags import BY_DEST, OBJECT_STORE_HOSTS, SECRETS, WEBUI_FLAGS, Kind

MODELS = "models"
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


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder for results; `oss` is the object-store prefix it stands for, if any.

    With `folder` the path is only a name, which clients use: the files lie in that folder. What is
    read-only is read, and takes no results.
    """

    path: Path
    oss: str | None = None
    folder: Path | None = None
    is_read_only: bool = False

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
    #: where set-up has put files that serve every data directory which has none of its own
    setup_models_dir: Path | None = None

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


def _each_path_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """A folder that is both a default and given is looked into once."""
    is_paths = all(isinstance(value, Path) for value in values)
    return tuple(dict.fromkeys(values)) if is_paths else values
