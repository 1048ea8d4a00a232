"""Every error of the portrait surfaces: status, code and text, in one table.

The misspellings are part of the contract: clients compare texts. A later edition of the API's
documents corrected some; `--portrait-wording corrected` answers with those.
"""

from dataclasses import dataclass
from typing import Final

from sdapi.errors import NoDevice, NoProcess, QueueFull, SDAPIError, ShuttingDown

#: errors that pass: whoever asked may ask again, so none of them is a fault of the work
PASSING: Final = (NoDevice, NoProcess, QueueFull, ShuttingDown)


@dataclass(frozen=True, slots=True)
class Fault:
    """One way for a call to fail."""

    status: int
    code: str
    text: str
    corrected: str = ""

    def message(self, *, is_corrected: bool) -> str:
        """The text in the wording that the server was started with."""
        return self.corrected if is_corrected and self.corrected else self.text


class PortraitError(SDAPIError):
    """A call failed with one of the faults below."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault
        self.status, self.code = fault.status, fault.code


_PARAMETER: Final = "PARAMETER_ERROR"
_ERROR: Final = "error"

# asked for in a way that nobody can answer
APP_UNKNOWN = Fault(400, _PARAMETER, "not found appid")
QUOTA_EXCEEDED = Fault(400, "EXCEEDED_QUOTA_ERROR", "exceeded quota")
SIGN_WRONG = Fault(401, _PARAMETER, "sign error")
MODEL_UNKNOWN = Fault(404, _PARAMETER, "model not found")
JOB_UNKNOWN = Fault(404, _PARAMETER, "job not found")
BODY_TOO_LARGE = Fault(413, _PARAMETER, "request body too large")

# check and training
INVALID_INPUT = Fault(462, _ERROR, "Invalid input data")
NO_IMAGES = Fault(462, _ERROR, "Image not provided")
FOLDER_FAILED = Fault(462, _ERROR, "Make dir in oss Error")
IMAGES_UNUSABLE = Fault(462, _ERROR, "Image process error")
NO_BEST_IMAGE = Fault(469, _ERROR, "Training - Not get best template image")
NO_WEIGHTS = Fault(469, _ERROR, "Training - Not get lora weight")

# creation
INVALID_CREATE = Fault(462, _ERROR, "Invalid input data. Please check the input dict.")
NO_TEMPLATE = Fault(462, _ERROR, "Image not provided. Please check the template_image.")
MODEL_ID_MALFORMED = Fault(462, _ERROR, "Prompts get error. Please check the model_id.")
NOT_TRAINED = Fault(
    462,
    _ERROR,
    "Roop image decord error. Pleace check the user's lora is trained or not.",
    "Roop image decode error. Please check the user's lora is trained or not.",
)
TEMPLATE_UNREADABLE = Fault(
    462,
    _ERROR,
    "Template image decord error. Please Give a new template.",
    "Template image decode error. Provide a new template",
)
NO_FACE = Fault(462, _ERROR, "There is not face in template. Please Give a new template.")
TEMPLATE_UNUSABLE = Fault(462, _ERROR, "Template image process error. Please Give a new template.")
FIRST_FUSION = Fault(469, _ERROR, "First Face Fusion Error, Can't get face in template image.")
FIRST_DIFFUSION = Fault(
    469, _ERROR, "First Stable Diffusion Process error. Check the webui status."
)
SECOND_FUSION = Fault(469, _ERROR, "Second Face Fusion Error, Can't get face in template image.")
SECOND_DIFFUSION = Fault(
    469, _ERROR, "Second Stable Diffusion Process error. Check the webui status."
)
FACE_COUNT = Fault(
    469, _ERROR, "Please confirm if the number of faces in the template corresponds to the user ID."
)
THIRD_DIFFUSION = Fault(
    469, _ERROR, "Third Stable Diffusion Process error. Check the webui status."
)
FACE_ID_UNREADABLE = Fault(
    500,
    _ERROR,
    "Face id image decord error. Pleace check the user's lora is trained or not.",
    "Face id image decode error. Pleace check the user's lora is trained or not.",
)
