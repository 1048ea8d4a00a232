"""Preprocessors: what turns a picture into the map that a control model was trained on.

preprocessor.py   what one is, and the values it works with
table.py          all of them, as data
listing.py        the table as `/controlnet/module_list` and `control_types` tell it
working_size.py   the size at which a picture is looked at
weightless/       those that need no weights

    canny = find("canny")
    values = canny.values(processor_res=-1, threshold_a=-1, threshold_b=-1)
    canny.run(pixels, resolution=values.resolution, threshold_a=values.threshold_a,
              threshold_b=values.threshold_b).pixels

Nothing here imports OpenCV or torch before a picture is looked at.
"""

from sdapi.extensions.controlnet.preprocessors.listing import (
    TAGS,
    find,
    module_detail,
    module_list,
    modules_of,
)
from sdapi.extensions.controlnet.preprocessors.preprocessor import (
    DetectedMap,
    Kind,
    Mask,
    Preprocessor,
    Slider,
    Values,
)
from sdapi.extensions.controlnet.preprocessors.table import PREPROCESSORS

__all__ = [
    "PREPROCESSORS",
    "TAGS",
    "DetectedMap",
    "Kind",
    "Mask",
    "Preprocessor",
    "Slider",
    "Values",
    "find",
    "module_detail",
    "module_list",
    "modules_of",
]
