"""The first argument of scripts whose part of a page begins with a heading: it means nothing."""

from typing import Annotated, Any, Final

from sdapi.services.scripts.arguments import Arg

#: whatever a client sends along
Heading = Annotated[Any, Arg("")]
HEADING: Final = "See the webui's contract for what suits this script."
