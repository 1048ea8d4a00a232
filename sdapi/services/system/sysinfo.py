"""What a bug report should say about this server (contract: webui-api 16); no credentials."""

import hashlib
import json
import os
import platform
import sys
from importlib.metadata import distributions
from typing import TYPE_CHECKING, Any

import psutil

from sdapi import __version__

if TYPE_CHECKING:
    from sdapi.services.container import Services

#: stands in the text while its checksum is taken
_PLACEHOLDER = "sdapi-checksum"
#: environment variables that say how this server behaves and hold no secret
_ENVIRONMENT = (
    "COMMANDLINE_ARGS",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TORCH_COMMAND",
)
_SECRET_WORDS = ("auth", "token", "ngrok", "secret")


def system_information(services: "Services") -> dict[str, Any]:
    """Platform, versions, command line, options, packages. Blocks for a moment."""
    settings = services.settings
    content: dict[str, Any] = {
        "Platform": platform.platform(),
        "Python": platform.python_version(),
        "Version": f"sdapi {__version__}",
        "Commit": None,
        "Git status": None,
        "Script path": str(settings.data_dir),
        "Data path": str(settings.data_dir),
        "Extensions dir": str(settings.data_dir / "extensions"),
        "Checksum": _PLACEHOLDER,
        "Commandline": _without_secrets(sys.argv),
        "Torch env info": _torch(),
        "Exceptions": [],
        "CPU": {"model": platform.processor(), "count logical": os.cpu_count()},
        "RAM": _ram(),
        "Extensions": [],
        "Inactive extensions": [],
        "Environment": {
            name: " ".join(_without_secrets(os.environ[name].split()))
            for name in _ENVIRONMENT
            if name in os.environ
        },
        "Config": dict(services.options.current),
        "Startup": services.startup.report(),
        "Packages": sorted(f"{each.name}=={each.version}" for each in distributions()),
    }
    text = json.dumps(content, default=str)
    content["Checksum"] = hashlib.sha256(text.encode()).hexdigest()
    return content


def _without_secrets(arguments: list[str]) -> list[str]:
    """A command line whose credentials are replaced, `--flag=value` and `--flag value` alike."""
    shown: list[str] = []
    hides_next = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        is_secret = name.startswith("--") and any(word in name for word in _SECRET_WORDS)
        if hides_next:
            shown.append("***")
        elif is_secret and equals:
            shown.append(f"{name}=***")
        else:
            shown.append(argument)
        hides_next = is_secret and not equals
    return shown


def _torch() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    cuda = torch.cuda.is_available()
    return {
        "torch_version": torch.__version__,
        "cuda_compiled_version": torch.version.cuda,
        "is_cuda_available": cuda,
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if cuda
        else [],
    }


def _ram() -> dict[str, str]:
    memory = psutil.virtual_memory()
    return {
        name: f"{getattr(memory, name) / (1 << 30):.2f}GiB" for name in ("total", "used", "free")
    }
