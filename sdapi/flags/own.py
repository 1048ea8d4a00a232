"""The flags that only this server has."""

from sdapi.flags.flag import Kind, acts, later

_S, _T, _I, _P = Kind.SWITCH, Kind.TEXT, Kind.INTEGER, Kind.PATH

OBJECT_STORE_HOSTS = "*-internal.aliyuncs.com"

OWN_FLAGS = (
    acts("--token", _T, None, "token every request must bring in its Authorization header"),
    acts("--service-token", Kind.TEXTS, [], "NAME=T: an own token for one service (repeatable)"),
    acts(
        "--webhook-secret", _T, None, "key that signs webhooks; without it requests cannot name one"
    ),
    acts("--allow-http-webhooks", _S, False, "webhooks may go over http, not only https"),
    acts("--shutdown-timeout", Kind.NUMBER, 30.0, "seconds the running job gets to finish"),
    acts(
        "--mount", Kind.TEXTS, [], "PATH[=oss://bucket/prefix]: a folder for results (repeatable)"
    ),
    acts("--allow-save-dir", Kind.PATHS, [], "folder a request may save into (repeatable)"),
    acts(
        "--allow-oss",
        Kind.TEXTS,
        [],
        "oss://bucket/prefix that requests may save into and read from (repeatable)",
    ),
    acts("--sign-urls", _I, 0, "seconds that links to results are valid (0: make none)"),
    acts("--upload-timeout", Kind.NUMBER, 30.0, "seconds a request waits for its uploads"),
    acts("--drop-uploaded", _S, False, "delete a mount's files here once they are uploaded"),
    acts("--outbox-gb", Kind.NUMBER, 10.0, "GiB that may wait for an object store"),
    acts("--object-cache-gb", Kind.NUMBER, 50.0, "GiB on disk for models from object stores"),
    acts("--allow-private-urls", _S, False, "fetch URLs from private addresses too"),
    acts(
        "--allow-url-host",
        Kind.TEXTS,
        [OBJECT_STORE_HOSTS],
        "host pattern fetched even when its address is private (repeatable)",
    ),
    acts(
        "--eas-config", Kind.PATHS, [], "a service JSON; replaces the usual services (repeatable)"
    ),
    acts(
        "--service", Kind.TEXTS, [], "NAME[:sync|async]; replaces the usual services (repeatable)"
    ),
    acts("--queue-url", _T, None, "redis://host:port/0: the queue of several servers (SQLite)"),
    acts(
        "--role",
        _T,
        "all",
        "api: queue addresses, no device; worker: the other way round",
        ("all", "api", "worker"),
    ),
    acts(
        "--queue-hold-ms",
        _I,
        250,
        "milliseconds that a queue's answer 'nothing came in time' is held back",
    ),
    acts("--no-portrait", _S, False, "leave the portrait services out"),
    acts(
        "--portrait-provider",
        Kind.TEXTS,
        [],
        "ROLE=NAME: a face provider other than the first that is there (repeatable)",
    ),
    acts("--portrait-processes", _I, 0, "processes that look at faces (0: by the cores)"),
    acts(
        "--portrait-keep-uploads-days",
        Kind.NUMBER,
        30.0,
        "days that photos sent for training are kept (0: not at all)",
    ),
    acts(
        "--portrait-wording",
        _T,
        "original",
        "corrected: error texts with fewer misspellings",
        ("original", "corrected"),
    ),
    acts("--portrait-checkpoint", _T, None, "checkpoint of portraits (the server's own)"),
    acts("--portrait-checkpoint-xl", _T, None, "SDXL checkpoint of portraits (the first)"),
    acts("--portrait-checkpoint-anime", _T, None, "checkpoint of style Anime (none)"),
    acts("--portrait-native-size", _I, 0, "pixels portraits are drawn at (the checkpoint's)"),
    acts("--portrait-url", _T, None, "web UI that draws portraits, when it is not this server"),
    acts("--portrait-authorization", _T, None, "value of the Authorization header for that"),
    acts("--queue-limit", _I, 1000, "jobs that may wait; more are answered 429"),
    acts("--train-share", Kind.NUMBER, 0.25, "share of a device that training gets beside jobs"),
    acts("--max-body-mb", Kind.NUMBER, 256.0, "largest request body in MiB"),
    acts("--model-cache-gb", Kind.NUMBER, None, "GiB of models kept in memory (automatic)"),
    acts("--devices", _T, None, "devices to run jobs on: cuda:0,cuda:1 or cpu (automatic)"),
    acts(
        "--optimize",
        _T,
        "exact",
        "near: compile the UNet; faster, not bit-identical",
        ("exact", "near"),
    ),
    later("--download-sd-model", _S, False, "fetch the SD 1.5 checkpoint when there is none"),
    acts("--disable-extensions", _S, False, "load built-in extensions only"),
    acts(
        "--log-format",
        _T,
        "auto",
        "auto: plain on a terminal, else JSON",
        ("auto", "plain", "json"),
    ),
    acts("--torch-command", _T, None, "how to install torch: 'pip install torch==… --index-url …'"),
    acts("--test", _S, False, "run the tests; what follows is handed to pytest"),
    acts("--version", _S, False, "print the version"),
)
