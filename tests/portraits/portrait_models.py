"""Folders of trained models, made without training: rendered photos and a tiny random LoRA.

What `sdapi.portrait.models.artefacts` describes, so that creation can be tested by itself. People
and templates are drawn by the demo model's renderer; nobody of them exists.
"""

import io
import time
from dataclasses import replace
from math import radians
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from sdapi.portrait.faces.face import Face, Pixels
from sdapi.portrait.faces.pose import pose_of
from sdapi.portrait.models.artefacts import Artefacts, ModelMeta, Reference
from sdapi.portrait.models.folders import ModelFolders
from sdapi.portrait.state.records import QUEUE_OWNER, Base
from sdapi.portrait.state.sqlite_store import SqlitePortraitStore
from sdapi.settings import Settings
from tools.demo_model.pictures.person import Identity, draw_identity, draw_view
from tools.demo_model.pictures.portrait import render_portrait

TRIGGER = "a portrait of a person"


def picture(
    who: int,
    how: int = 0,
    *,
    side: int = 512,
    yaw: float = 0.0,
    scale: float = 0.55,
    identity: Identity | None = None,
) -> Pixels:
    """A rendered person; `who` is somebody, `how` another view, `yaw` in degrees.

    Somebody else's `identity` is shown in that person's place.
    """
    identity = identity or draw_identity(np.random.default_rng([50, who]))
    view = draw_view(np.random.default_rng([60, how, who]))
    view = replace(view, framing="portrait", scale=scale, yaw=radians(yaw))
    return (render_portrait(replace(identity, has_glasses=False), view, side) * 255 + 0.5).astype(
        np.uint8
    )


def jpeg(rgb: Pixels, quality: int = 95) -> bytes:
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "JPEG", quality=quality, subsampling=0)
    return data.getvalue()


def png(rgb: Pixels) -> bytes:
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "PNG")
    return data.getvalue()


def write_lora(path: Path, seed: int = 0, width: int = 128) -> None:
    """A LoRA of one layer that hardly changes anything; fits the demo checkpoint as it is."""
    noise = torch.Generator().manual_seed(seed)
    layer = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            f"{layer}.lora_down.weight": torch.randn(2, width, generator=noise) * 1e-4,
            f"{layer}.lora_up.weight": torch.randn(width, 2, generator=noise) * 1e-4,
            f"{layer}.alpha": torch.tensor(1.0),
        },
        path,
    )


def write_person(
    folder: Path,
    photo: Pixels,
    lora_name: str,
    *,
    kind: Base = "sd15",
    sex: str = "secret",
    trigger: str = TRIGGER,
    others: tuple[tuple[Pixels, Face], ...] = (),
) -> None:
    """A person's model in a folder that exists."""
    artefacts = Artefacts(folder)
    artefacts.reference.write_bytes(jpeg(photo))
    if kind == "sd15":
        artefacts.face_id.write_bytes(jpeg(photo, quality=94))
    for number, (rgb, face) in enumerate(others):
        assert face.points68 is not None
        pose = pose_of(face.points68)
        reference = Reference(face.points68, pose.yaw, pose.pitch, 0.0, 50.0)
        artefacts.write_reference(number, jpeg(rgb), reference)
    artefacts.write_meta(
        ModelMeta(kind, "person", trigger, lora_name, sex=sex, created_s=time.time())
    )


async def add_person(
    settings: Settings,
    model_id: str,
    photo: Pixels,
    *,
    owner: str = QUEUE_OWNER,
    kind: Base = "sd15",
    role: str = "person",
    has_lora: bool = True,
) -> Artefacts:
    """A trained person in a server's data directory and database."""
    folders = ModelFolders(settings.portrait_dir)
    draft = folders.work(owner, model_id)
    draft.mkdir(parents=True)
    write_person(draft, photo, model_id, kind=kind)
    if role == "scene":
        meta = replace(Artefacts(draft).meta(), role="scene", captions=("a quiet street",))
        Artefacts(draft).write_meta(meta)
    folders.publish(draft, owner, model_id)
    if has_lora:
        write_lora(settings.lora_dirs[0] / f"{model_id}.safetensors")
    artefacts = Artefacts(folders.of(owner, model_id))
    store = SqlitePortraitStore(settings.state_file)
    await store.open()
    await store.put_model(owner, model_id, artefacts.meta().to_json())
    await store.close()
    return artefacts
