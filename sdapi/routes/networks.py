"""LoRAs, hypernetworks and embeddings: what there is, and making new ones."""

import anyio.to_thread
from fastapi import APIRouter

from sdapi.errors import NoCheckpoint, NotBuilt
from sdapi.routes import ServicesDep
from sdapi.schemas.catalog import EmbeddingsResponse, HypernetworkItem, LoraItem
from sdapi.schemas.networks import CreateEmbeddingRequest, CreateResponse
from sdapi.schemas.problems import Problem
from sdapi.services.catalog.catalog import Checkpoint
from sdapi.services.catalog.create_embedding import NotCreated, create_embedding
from sdapi.services.catalog.network_listing import list_embeddings, lora_metadata
from sdapi.services.container import Services

router = APIRouter(prefix="/sdapi/v1", tags=["networks"])
_TRAINING = "training is not part of this server; train with a trainer and put the file in place"


@router.get("/loras")
async def loras(services: ServicesDep) -> list[LoraItem]:
    """The LoRAs and their kin; metadata is what the file says of itself."""
    found = await anyio.to_thread.run_sync(lambda: services.networks.loras)
    return [
        LoraItem(
            name=lora.name, alias=lora.alias, path=str(lora.path), metadata=lora_metadata(lora)
        )
        for lora in found
    ]


@router.post("/refresh-loras")
async def refresh_loras(services: ServicesDep) -> None:
    """Look for LoRAs on disk again."""
    await anyio.to_thread.run_sync(services.networks.refresh)


@router.get("/hypernetworks")
async def hypernetworks(services: ServicesDep) -> list[HypernetworkItem]:
    """The hypernetworks."""
    found = await anyio.to_thread.run_sync(lambda: services.networks.hypernetworks)
    return [HypernetworkItem(name=name, path=str(path)) for name, path in found.items()]


@router.get("/embeddings")
async def embeddings(services: ServicesDep) -> EmbeddingsResponse:
    """The embeddings; `skipped` are those that do not fit the checkpoint in use."""
    return EmbeddingsResponse.model_validate(
        await anyio.to_thread.run_sync(
            lambda: list_embeddings(services.networks, _checkpoint(services))
        )
    )


@router.post("/refresh-embeddings")
async def refresh_embeddings(services: ServicesDep) -> None:
    """Look for embeddings on disk again; also done by itself whenever a folder has changed."""
    await anyio.to_thread.run_sync(services.networks.embeddings)


@router.post("/create/embedding")
async def create(body: CreateEmbeddingRequest, services: ServicesDep) -> CreateResponse:
    """Make an embedding file that starts with the meaning of a text.

    As in the webui a name that is taken or empty is told under status 200.
    """
    checkpoint = await anyio.to_thread.run_sync(_checkpoint, services)
    if checkpoint is None:
        raise NoCheckpoint("no checkpoint to take the vectors from")
    try:
        path = await anyio.to_thread.run_sync(
            lambda: create_embedding(
                services.settings.embeddings_dir,
                checkpoint,
                body.name,
                body.num_vectors_per_token,
                body.init_text,
                overwrites=body.overwrite_old,
            )
        )
    except NotCreated as error:
        return CreateResponse(info=f"create embedding error: {error.detail}")
    return CreateResponse(info=f"create embedding filename: {path}")


@router.post("/create/hypernetwork", status_code=501, response_model=Problem)
async def create_hypernetwork() -> None:
    """501: a hypernetwork is made to be trained, and nothing is trained here."""
    raise NotBuilt(f"create/hypernetwork: {_TRAINING}")


@router.post("/train/embedding", status_code=501, response_model=Problem)
async def train_embedding() -> None:
    """501: nothing is trained through this API."""
    raise NotBuilt(f"train/embedding: {_TRAINING}")


@router.post("/train/hypernetwork", status_code=501, response_model=Problem)
async def train_hypernetwork() -> None:
    """501: nothing is trained through this API."""
    raise NotBuilt(f"train/hypernetwork: {_TRAINING}")


def _checkpoint(services: Services) -> Checkpoint | None:
    """The one in use, if there is any."""
    try:
        return services.catalog.default_checkpoint(
            services.options.current.text("sd_model_checkpoint")
        )
    except NoCheckpoint:
        return None
