"""Models that are to be forgotten, with every file that was kept for them."""

import anyio.to_thread

from sdapi.errors import StorageFailed
from sdapi.portrait.models.folders import ModelFolders
from sdapi.portrait.state.records import QUEUE_OWNER
from sdapi.portrait.state.store import PortraitStore


async def remove_model(
    store: PortraitStore, folders: ModelFolders, owner: str, model_id: str
) -> bool:
    """Remove a model's files, then what is known of it; False when there is no such model.

    Files go first, so that whoever could not delete them may ask again, and once more after its
    job, which may have published them in between. Raises StorageFailed.
    """
    is_known = model_id in await store.model_ids(owner)
    if not is_known and owner != QUEUE_OWNER:
        return False
    had_files = await remove_files(folders, owner, model_id)
    if is_known:
        await store.delete_model(owner, model_id)
        await remove_files(folders, owner, model_id)
    return is_known or had_files


async def remove_files(folders: ModelFolders, owner: str, model_id: str) -> bool:
    """Remove a model's files; False when there were none. Raises StorageFailed."""
    try:
        return await anyio.to_thread.run_sync(folders.delete, owner, model_id)
    except OSError as error:
        raise StorageFailed(f"files of the model {model_id} cannot be deleted: {error}") from error
