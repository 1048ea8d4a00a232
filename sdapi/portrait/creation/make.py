"""The creator of a server, made of its settings. What it needs is imported with its first use."""

from sdapi.portrait.base.checkpoints import BaseModels
from sdapi.portrait.creation.drawing.address import Address
from sdapi.portrait.creation.drawing.bases import Bases, RemoteBases
from sdapi.portrait.handlers import Creator
from sdapi.portrait.tools import Tools
from sdapi.services.container import Services
from sdapi.settings import Settings


def make_creator(
    settings: Settings, services: Services, tools: Tools, drawn_at: Address | None
) -> Creator:
    """Draws with this process's services, or at another address."""
    from sdapi.portrait.creation.creator import PortraitCreator
    from sdapi.portrait.creation.drawing.in_process import InProcessDrawer
    from sdapi.portrait.creation.drawing.remote import RemoteDrawer

    if drawn_at is None:
        bases = Bases(BaseModels(settings, services.catalog, services.options))
        return PortraitCreator(tools, InProcessDrawer(services), bases)
    remote = RemoteBases(
        settings.portrait_checkpoint,
        settings.portrait_checkpoint_xl,
        settings.portrait_checkpoint_anime,
        settings.portrait_native_size,
    )
    return PortraitCreator(tools, RemoteDrawer(drawn_at.url, drawn_at.authorization), remote)
