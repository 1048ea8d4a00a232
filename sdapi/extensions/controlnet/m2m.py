"""The script that draws a video frame by frame: listed, since clients look for it."""

from typing import Annotated, Any

from pydantic import BaseModel

from sdapi.errors import NotBuilt
from sdapi.services.scripts.arguments import Arg
from sdapi.services.scripts.script import ScriptResult, ScriptRun, SelectableScript


class MovieToMovieArgs(BaseModel):
    """For each of three units a video, its settings, and whether its maps are kept."""

    video_0: Annotated[Any, Arg("")] = None
    unit_0: Annotated[Any, Arg("")] = None
    saves_0: Annotated[Any, Arg("Save preprocessed")] = False
    video_1: Annotated[Any, Arg("")] = None
    unit_1: Annotated[Any, Arg("")] = None
    saves_1: Annotated[Any, Arg("Save preprocessed")] = False
    video_2: Annotated[Any, Arg("")] = None
    unit_2: Annotated[Any, Arg("")] = None
    saves_2: Annotated[Any, Arg("Save preprocessed")] = False
    duration: Annotated[Any, Arg("Duration", 10.0, 200.0, 10)] = 50.0


class MovieToMovie(SelectableScript):
    """`webuiapi` takes its name in the list for the sign that there is ControlNet."""

    name = "ControlNet M2M"
    args = MovieToMovieArgs

    async def run(self, run: ScriptRun, args: Any) -> ScriptResult:
        raise NotBuilt("script_name: videos are not drawn here; send their frames one by one")
