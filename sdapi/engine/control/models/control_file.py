"""A control model's file: what kind it is, told from its keys (contract: controlnet-api 2.1)."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sdapi.engine.weights.state_dict import StateDict, read_state_dict
from sdapi.errors import ModelUnusable

#: how the original layout wraps a ControlNet, beside the checkpoint it was trained on
_WRAPPING = "control_model."
#: marks weights that are meant to be added to a checkpoint's
_DIFFERENCE = "difference"


class Kind(StrEnum):
    """Kinds of control models, under the names that errors call them."""

    CONTROLNET = "ControlNet"
    UNION = "ControlNet Union"
    CONTROL_LORA = "Control-LoRA"
    T2I_ADAPTER = "T2I-Adapter"
    T2I_STYLE = "T2I style adapter"
    IP_ADAPTER = "IP-Adapter"
    LLLITE = "ControlNet-LLLite"
    SPARSE_CTRL = "SparseCtrl"
    DIFFERENCE = "ControlNet difference"


@dataclass(frozen=True, slots=True)
class ControlFile:
    """The content of a file."""

    #: without suffix, for errors
    name: str
    kind: Kind
    weights: StateDict


@contextmanager
def fitting_together(name: str) -> Generator[None]:
    """A torn file shows in whatever is asked of its shapes first: one error for all of it."""
    try:
        yield
    except (KeyError, IndexError, ValueError, TypeError, ZeroDivisionError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise ModelUnusable(f"{name}: its weights do not fit together ({reason})") from error


def read_control_file(path: Path) -> ControlFile:
    """Read a file and tell its kind; raises `ModelUnusable` for what is none of them."""
    weights = read_state_dict(path)
    if _DIFFERENCE in weights:
        return ControlFile(path.stem, Kind.DIFFERENCE, weights)
    if any(key.startswith(_WRAPPING) for key in weights):
        # Early files hold the checkpoint as well; nobody reads it.
        weights = {
            key.removeprefix(_WRAPPING): tensor
            for key, tensor in weights.items()
            if key.startswith(_WRAPPING)
        }
    return ControlFile(path.stem, _kind_of(weights, path), weights)


def _kind_of(weights: StateDict, path: Path) -> Kind:
    def has(start: str) -> bool:
        return any(key.startswith(start) for key in weights)

    signs = (
        (Kind.CONTROL_LORA, "lora_controlnet" in weights),
        (Kind.IP_ADAPTER, has("ip_adapter.") and has("image_proj.")),
        (Kind.IP_ADAPTER, "ip_adapter" in weights and "image_proj" in weights),
        (Kind.LLLITE, has("lllite_")),
        (Kind.SPARSE_CTRL, any("motion_modules." in key for key in weights)),
        (Kind.UNION, "task_embedding" in weights),
        (Kind.CONTROLNET, has("controlnet_cond_embedding.")),
        (Kind.CONTROLNET, has("input_hint_block.")),
        (Kind.T2I_STYLE, "style_embedding" in weights),
        (Kind.T2I_ADAPTER, has("body.") or has("adapter.body.")),
    )
    found = next((kind for kind, is_it in signs if is_it), None)
    if found is None:
        raise ModelUnusable(
            f"{path.name}: [ControlNet Error] Cannot recognize the ControlModel! Its weights are "
            f"those of no {', '.join(Kind)}"
        )
    return found
