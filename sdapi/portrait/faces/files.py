"""The two face files that set-up fetches, and where they are kept. Standard library only.

They lie in the wheel of `mediapipe`, which is unpacked and never installed: it needs an older
NumPy than everything else here.
"""

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Final

MEDIAPIPE_VERSION: Final = "0.10.21"
FOLDER: Final = "face"
MESH: Final = "face_landmark.tflite"
SELFIE: Final = "selfie_segmentation.tflite"
LICENCE: Final = "LICENSE-mediapipe.txt"
#: the one embedder in whose space InsightFace's swapper works, beside its own file
SWAPPER_EMBEDDER: Final = "w600k_r50*.onnx"

#: file name -> its place in the wheel and its SHA-256; the licence may change its wording
MEMBERS: Final = {
    MESH: (
        "mediapipe/modules/face_landmark/face_landmark.tflite",
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    ),
    SELFIE: (
        "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
    ),
}
LICENCE_MEMBER: Final = f"mediapipe-{MEDIAPIPE_VERSION}.dist-info/LICENSE"


def take_from_wheel(wheel: Path, folder: Path) -> None:
    """Put both files and their licence into the folder; raises ValueError for wrong ones.

    Also raises what a damaged archive and a full disk raise: BadZipFile, KeyError, OSError.
    """
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(member) for name, (member, _) in MEMBERS.items()}
        licence = archive.read(LICENCE_MEMBER)
    for name, data in contents.items():
        if hashlib.sha256(data).hexdigest() != MEMBERS[name][1]:
            raise ValueError(f"{name} is not the file it should be")
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (contents | {LICENCE: licence}).items():
        draft = folder / f".{name}.{os.getpid()}"
        draft.write_bytes(data)
        draft.replace(folder / name)


def are_complete(folder: Path) -> bool:
    """True when both files are there and are the right ones."""
    return all(is_right(folder / name) for name in MEMBERS)


def is_right(path: Path) -> bool:
    """True for a file with the hash that its name promises."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == MEMBERS[path.name][1]
    except OSError:
        return False
