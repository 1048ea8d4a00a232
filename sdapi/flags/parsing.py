"""What the command line, the environment and the defaults come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdapi.flags.command_line import parse_command_line
from sdapi.flags.environment import parse_environment, shared_arguments
from sdapi.flags.flag import REPEATABLE
from sdapi.flags.table import FLAGS

#: the word that begins an operator's command instead of a server
QUEUE_COMMAND = "queue"


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
    from_files = parse_command_line(list(file_arguments))
    typed = parse_command_line([*shared_arguments(environ), *argv])
    given = from_files | parse_environment(environ) | typed
    values: dict[str, Any] = {}
    for flag in FLAGS:
        values[flag.dest] = given.get(flag.dest, flag.default)
        if flag.kind in REPEATABLE:
            values[flag.dest] = [*flag.default, *given.get(flag.dest, [])]
    return ParsedFlags(values, frozenset(given))
