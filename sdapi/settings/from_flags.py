"""A command line -> `Settings`, one function for each kind of flags."""

import re
from pathlib import Path
from typing import Any

from sdapi.flags import BY_DEST, Kind, ParsedFlags
from sdapi.settings.flag_values import (
    SettingsError,
    above_zero,
    at_least,
    log_level_of,
    mount_of,
    path_of,
    paths_of,
    port_of,
    prefix_of,
    provider_of,
    regex_of,
    service_token_of,
    share_of,
    tls_files,
    token_of,
    user_of,
    words_of,
)
from sdapi.settings.settings import AUXILIARY_FOLDERS, MODELS, Settings

#: seven days: the longest that a signature of version 4 is valid
_MAX_SIGNED_S = 604_800


def settings_from(flags: ParsedFlags, base_dir: Path) -> Settings:
    """Settings of a command line; its relative paths are below `base_dir`.

    Raises `SettingsError` for flags that cannot work.
    """
    flags = _with_absolute_paths(flags, base_dir)
    given = {dest: flags[dest] for dest in BY_DEST if dest in flags.given}
    return Settings(
        **_folders(flags),
        **_network(flags),
        **_access(flags),
        **_storage(flags, base_dir),
        **_portrait(flags),
        **_model_use(flags),
        **_queue(flags),
        **_behaviour(flags),
        setup_models_dir=base_dir / MODELS,
        flag_values=given,
    )


def _with_absolute_paths(flags: ParsedFlags, base_dir: Path) -> ParsedFlags:
    """The same flags, every given path absolute; defaults stay relative to the data directory."""
    values = dict(flags.values)
    for dest in flags.given | {"data_dir"}:
        flag = BY_DEST[dest]
        if flag.kind is Kind.PATH:
            values[dest] = str(path_of(values[dest], base_dir))
        elif flag.kind is Kind.PATHS:
            own = values[dest][len(flag.default) :]
            values[dest] = [*flag.default, *(str(path_of(one, base_dir)) for one in own)]
    return ParsedFlags(values, flags.given)


def _folders(flags: ParsedFlags) -> dict[str, Any]:
    annotators = flags["controlnet_annotator_models_path"] or f"{MODELS}/ControlNet/annotators"
    return {
        "data_dir": Path(flags["data_dir"]),
        "models_dir": Path(flags["models_dir"] or MODELS),
        "ckpt": flags["ckpt"],
        "checkpoint_dirs": paths_of(f"{MODELS}/Stable-diffusion", flags["ckpt_dir"]),
        "vae_dirs": paths_of(f"{MODELS}/VAE", flags["vae_dir"]),
        "vae_path": Path(flags["vae_path"]) if flags["vae_path"] else None,
        "lora_dirs": paths_of(flags["lora_dir"], flags["lyco_dir_backcompat"]),
        "embeddings_dir": Path(flags["embeddings_dir"]),
        "hypernetwork_dir": Path(flags["hypernetwork_dir"]),
        "controlnet_dirs": paths_of(f"{MODELS}/ControlNet", flags["controlnet_dir"]),
        "controlnet_annotators_dir": Path(annotators),
        "clip_models_dir": Path(flags["clip_models_path"] or f"{MODELS}/CLIP"),
        "auxiliary_dirs": {name: Path(flags[dest]) for name, dest in AUXILIARY_FOLDERS.items()},
        "styles_files": paths_of(*flags["styles_file"]),
        "options_file": Path(flags["ui_settings_file"]),
    }


def _network(flags: ParsedFlags) -> dict[str, Any]:
    subpath = (flags["subpath"] or "").strip("/")
    key, certificate = tls_files(flags)
    return {
        "host": flags["server_name"] or ("0.0.0.0" if flags["listen"] else "127.0.0.1"),
        "port": port_of(flags["port"]),
        "subpath": f"/{subpath}" if subpath else "",
        "tls_keyfile": key,
        "tls_certfile": certificate,
        "keep_alive_s": at_least(0, flags, "timeout_keep_alive"),
        "shutdown_timeout_s": float(at_least(0, flags, "shutdown_timeout")),
        "max_body_bytes": int(above_zero(flags, "max_body_mb") * (1 << 20)),
        "queue_limit": at_least(0, flags, "queue_limit"),
        "train_share": share_of(flags, "train_share"),
        "cors_origins": words_of(flags["cors_allow_origins"]),
        "cors_origins_regex": regex_of(flags, "cors_allow_origins_regex"),
    }


def _access(flags: ParsedFlags) -> dict[str, Any]:
    return {
        "api_auth": tuple(user_of(entry) for entry in words_of(flags["api_auth"])),
        "token": token_of(flags["token"]),
        "service_tokens": dict(service_token_of(entry) for entry in flags["service_token"]),
        "webhook_secret": flags["webhook_secret"] or None,
        "allow_http_webhooks": flags["allow_http_webhooks"],
        "allow_private_urls": flags["allow_private_urls"],
        "allow_url_hosts": tuple(host.lower() for host in flags["allow_url_host"]),
    }


def _storage(flags: ParsedFlags, base_dir: Path) -> dict[str, Any]:
    seconds = at_least(0, flags, "sign_urls")
    if seconds > _MAX_SIGNED_S:
        raise SettingsError(f"--sign-urls must be at most {_MAX_SIGNED_S} seconds, not {seconds}")
    return {
        "mounts": tuple(mount_of(entry, base_dir) for entry in flags["mount"]),
        "allow_save_dirs": paths_of(*flags["allow_save_dir"]),
        "allow_oss": tuple(
            prefix_of(entry, "--allow-oss", ("oss",)) for entry in flags["allow_oss"]
        ),
        "sign_urls_s": seconds,
        "upload_timeout_s": above_zero(flags, "upload_timeout"),
        "drop_uploaded": flags["drop_uploaded"],
        "outbox_bytes": int(above_zero(flags, "outbox_gb") * (1 << 30)),
        "object_cache_bytes": int(above_zero(flags, "object_cache_gb") * (1 << 30)),
    }


def _queue(flags: ParsedFlags) -> dict[str, Any]:
    url, role = flags["queue_url"], flags["role"]
    if url is not None and not re.match(r"(redis|rediss|unix)://", url):
        raise SettingsError("--queue-url is of the form redis://[user:password@]host:port/0")
    if role != "all" and url is None:
        raise SettingsError(f"--role {role} needs a queue that others share: --queue-url redis://…")
    return {
        "services": tuple(flags["service"]),
        "service_files": paths_of(*flags["eas_config"]),
        "role": role,
        "queue_url": url,
        "queue_hold_s": at_least(0, flags, "queue_hold_ms") / 1000,
    }


def _portrait(flags: ParsedFlags) -> dict[str, Any]:
    return {
        "portrait": not flags["no_portrait"],
        "portrait_providers": dict(provider_of(entry) for entry in flags["portrait_provider"]),
        "portrait_processes": at_least(0, flags, "portrait_processes"),
        "portrait_keep_uploads_days": at_least(0, flags, "portrait_keep_uploads_days"),
        "portrait_wording": flags["portrait_wording"],
        "portrait_checkpoint": flags["portrait_checkpoint"],
        "portrait_checkpoint_xl": flags["portrait_checkpoint_xl"],
        "portrait_checkpoint_anime": flags["portrait_checkpoint_anime"],
        "portrait_native_size": at_least(0, flags, "portrait_native_size"),
        "portrait_url": flags["portrait_url"],
        "portrait_authorization": flags["portrait_authorization"],
    }


def _model_use(flags: ParsedFlags) -> dict[str, Any]:
    gigabytes = above_zero(flags, "model_cache_gb") if flags["model_cache_gb"] is not None else None
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
        "devices": words_of(flags["devices"]),
        "model_cache_bytes": None if gigabytes is None else int(gigabytes * (1 << 30)),
    }


def _behaviour(flags: ParsedFlags) -> dict[str, Any]:
    return {
        **_as_given(
            flags,
            "api_log time_log log_format hide_ui_dir_config freeze_settings filenames_max_length "
            "unix_filenames_sanitization no_prompt_history",
        ),
        "log_level": log_level_of(flags["loglevel"]),
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
        "freeze_settings_in_sections": words_of(flags["freeze_settings_in_sections"]),
        "freeze_specific_settings": words_of(flags["freeze_specific_settings"]),
    }


def _as_given(flags: ParsedFlags, names: str) -> dict[str, Any]:
    return {name: flags[name] for name in names.split()}
