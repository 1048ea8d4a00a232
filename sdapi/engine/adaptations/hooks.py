"""Hooks on modules as one thing that is put in place and taken away again."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

#: (the module's first argument) -> what it gets instead
Before = Callable[[Tensor], Tensor]
#: (the module's output) -> what its caller gets instead
After = Callable[[Tensor], Tensor]


class Hooks:
    """Changes what modules are given and what they give; hooks added later lie further inside."""

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []

    def before(self, module: nn.Module, change: Before) -> None:
        """Change the first argument of every call."""

        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (change(inputs[0]), *inputs[1:])

        self._handles.append(module.register_forward_pre_hook(hook))

    def after(self, module: nn.Module, change: After) -> None:
        """Change the output of every call."""

        def hook(_: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            return change(output)

        self._handles.append(module.register_forward_hook(hook, prepend=True))

    def around(self, module: nn.Module, before: Before, after: After) -> None:
        """Change both."""
        self.before(module, before)
        self.after(module, after)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


@contextmanager
def hooks() -> Generator[Hooks]:
    """Hooks that are gone when the block ends."""
    made = Hooks()
    try:
        yield made
    finally:
        made.remove()
