"""Flags from a command line, and the page of help."""

import argparse
from typing import Any, Never

from sdapi.errors import near_names
from sdapi.flags.flag import REPEATABLE, Flag, Kind
from sdapi.flags.table import FLAGS
from sdapi.flags.values import CONVERTERS, FlagError


def parse_command_line(arguments: list[str]) -> dict[str, Any]:
    """The flags that are given; raises `FlagError` with the near names."""
    namespace, unknown = _parser().parse_known_args(arguments)
    for argument in unknown:
        if argument.startswith("-"):
            name = argument.partition("=")[0]
            near = near_names(name, (flag.name for flag in FLAGS))
            raise FlagError(f"unknown flag {name!r}; the nearest are {near}")
    if unknown:
        raise FlagError(f"unexpected argument {unknown[0]!r}; flags start with --")
    return vars(namespace)


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
    converter = CONVERTERS.get(flag.kind, str)
    choices = flag.choices or None
    if flag.kind in REPEATABLE:
        group.add_argument(flag.name, action="append", dest=flag.dest, help=text, metavar=metavar)
    elif flag.kind is Kind.WORDS:
        group.add_argument(flag.name, nargs="+", dest=flag.dest, help=text, metavar=metavar)
    else:
        group.add_argument(
            flag.name, type=converter, dest=flag.dest, help=text, metavar=metavar, choices=choices
        )
