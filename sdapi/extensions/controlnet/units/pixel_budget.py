"""How many pixels one request may hold in memory, pictures and maps together."""

from dataclasses import dataclass
from typing import Final

from sdapi.errors import BadRequest

_MOST: Final = 256_000_000


@dataclass(slots=True)
class PixelBudget:
    """What is left for a request."""

    left: int = _MOST

    def take(self, size: tuple[int, int], place: str) -> None:
        """Count a picture or map of a size; raises `BadRequest` where it is too much."""
        width, height = size
        self.left -= width * height
        if self.left < 0:
            raise BadRequest(
                f"{place}: {width}x{height} more pixels make this request too large; all pictures "
                f"and maps together may have {_MOST // 1_000_000} million"
            )
