"""The UNet compiled (`--optimize near`): faster, not bit-identical.

Networks are merged into the weights in place, so another LoRA does not compile anew; another size
or batch does, once.
"""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn


def compile_unet(unet: nn.Module, backend: Any = "inductor") -> None:
    """Let calls of the UNet run compiled from now on; weights and modules stay what they are."""
    unet.compile(backend=backend)


def calling(unet: nn.Module) -> Callable[..., Any]:
    """What to call for the UNet: uncompiled while something is hooked into its inside.

    Compiled code does not notice hooks that came later. To watch for them would compile anew for
    every job with hooks, which takes longer than to draw it.
    """
    # torch has no public names for these three.
    module: Any = unet
    if module._compiled_call_impl is None:
        return unet
    # Its own hooks, as an offloaded one has, were there before it was compiled.
    inside: Iterable[Any] = (each for each in unet.modules() if each is not unet)
    is_hooked = any(each._forward_hooks or each._forward_pre_hooks for each in inside)
    return module._call_impl if is_hooked else unet
