"""Running numbers in names of files: `00012-seed.png`, `grid-0007.png`, `name-3.png`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_NUMBER = re.compile(r"([0-9]+)(?=[-.]|$)")


@dataclass(frozen=True, slots=True)
class Numbering:
    """How a file is called: `before`, its number in at least so many digits, `after`."""

    before: str
    digits: int
    #: with the ending
    after: str

    def name(self, number: int) -> str:
        """The file's name with a number.

        >>> Numbering("grid-", 4, ".png").name(7)
        'grid-0007.png'
        """
        return f"{self.before}{number:0{self.digits}}{self.after}"


def next_number(names: Iterable[str], before: str = "") -> int:
    """One more than the highest number that names have right behind `before`; the first is 0."""
    highest = -1
    for name in names:
        if name.startswith(before) and (digits := _NUMBER.match(name, len(before))):
            highest = max(highest, int(digits[1]))
    return highest + 1
