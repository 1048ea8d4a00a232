"""What training and creation both work with: state, files, photos, faces."""

from dataclasses import dataclass

from sdapi.portrait.faces.processes import FaceProcesses
from sdapi.portrait.faces.providers import Choices
from sdapi.portrait.models.folders import ModelFolders
from sdapi.portrait.photos import PhotoFetcher
from sdapi.portrait.state.store import PortraitStore


@dataclass(frozen=True, slots=True)
class Tools:
    """One set for each server."""

    store: PortraitStore
    folders: ModelFolders
    photos: PhotoFetcher
    processes: FaceProcesses
    choices: Choices
