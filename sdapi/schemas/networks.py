"""Making embeddings."""

from pydantic import BaseModel, Field

from sdapi.schemas.coercion import Bool, Int, Str


class CreateEmbeddingRequest(BaseModel):
    """`POST /sdapi/v1/create/embedding`."""

    name: Str = Field(description="Name of the file, and what prompts call it")
    num_vectors_per_token: Int = Field(description="Vectors, each as long as one token")
    overwrite_old: Bool = Field(description="Replace a file of this name")
    init_text: Str = Field("*", description="Words to start from; empty: zeros")


class CreateResponse(BaseModel):
    """What was made, or why not."""

    info: str = Field(examples=["create embedding filename: /data/embeddings/new.pt"])
