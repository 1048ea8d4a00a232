"""CLIP interrogation, by models of random weights in the layout that transformers saves."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
)

from sdapi.engine.interrogate.clip import ClipInterrogator, InterrogateOptions
from sdapi.errors import NoModel

PICTURE = Image.new("RGB", (40, 30), "red")
SIDE = 32
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "square", "[DEC]", "[ENC]"]
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
VISION = SMALL | {"num_attention_heads": 2, "image_size": SIDE, "patch_size": 16}


def write_blip(folder: Path) -> None:
    folder.mkdir(parents=True)
    words = folder / "words.txt"
    words.write_text("\n".join(WORDS))
    text = SMALL | {"num_attention_heads": 2, "vocab_size": len(WORDS), "encoder_hidden_size": 16}
    text |= {"max_position_embeddings": 64, "bos_token_id": 8, "eos_token_id": 3}
    config = BlipConfig(
        text_config=text | {"pad_token_id": 0, "sep_token_id": 3},
        vision_config=VISION,
        projection_dim=16,
    )
    BlipForConditionalGeneration(config).save_pretrained(folder)
    tokenizer = BertTokenizer(str(words))
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    BlipProcessor(images, tokenizer).save_pretrained(folder)


def write_clip(folder: Path) -> None:
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = [*letters, *(f"{each}</w>" for each in letters)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    text = SMALL | {"num_attention_heads": 2, "vocab_size": len(vocabulary)}
    text |= {"bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1}
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    tokenizer = CLIPTokenizer(vocab={word: n for n, word in enumerate(vocabulary)}, merges=[])
    side = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=side)
    CLIPProcessor(images, tokenizer).save_pretrained(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrogate")
    torch.manual_seed(0)
    write_blip(folder / "BLIP")
    write_clip(folder / "CLIP")
    return folder


@pytest.fixture
def phrases(tmp_path: Path) -> Path:
    (tmp_path / "artists.txt").write_text("by me\nby you\n")
    (tmp_path / "flavors.top2.txt").write_text("bright\ndark\nround\n\n")
    return tmp_path


def told(models: Path, phrases: Path, options: InterrogateOptions) -> list[str]:
    made = ClipInterrogator(models / "BLIP", models / "CLIP", phrases)
    return made.describe(PICTURE, options).split(", ")


def test_a_caption_is_followed_by_the_nearest_phrases_of_each_category(models: Path, phrases: Path):
    caption, artist, *flavors = told(models, phrases, InterrogateOptions(min_length=4))
    assert set(caption.split()) <= {*WORDS, ""}
    assert artist in ("by me", "by you")
    assert len(set(flavors)) == 2
    assert set(flavors) <= {"bright", "dark", "round"}


def test_categories_may_be_skipped_and_shares_shown(models: Path, phrases: Path):
    options = InterrogateOptions(skipped=frozenset({"artists"}), shows_ranks=True)
    _, *flavors = told(models, phrases, options)
    assert len(flavors) == 2
    assert all(flavor.startswith("(") and flavor.endswith(")") for flavor in flavors)


def test_a_limit_of_phrases_holds_from_the_next_picture_on(models: Path, phrases: Path):
    made = ClipInterrogator(models / "BLIP", models / "CLIP", phrases)
    made.describe(PICTURE, InterrogateOptions())
    *_, flavor = made.describe(PICTURE, InterrogateOptions(limit=1)).split(", ")
    assert flavor == "bright"
    assert len(made.describe(PICTURE, InterrogateOptions()).split(", ")) == 4


def test_without_clip_the_caption_stands_alone(models: Path, phrases: Path):
    made = ClipInterrogator(models / "BLIP", models / "none", phrases)
    assert ", " not in made.describe(PICTURE, InterrogateOptions())


def test_a_folder_that_is_not_there_is_named(models: Path, phrases: Path):
    made = ClipInterrogator(models / "none", models / "CLIP", phrases)
    with pytest.raises(NoModel, match=r"none/config\.json is not there"):
        made.describe(PICTURE, InterrogateOptions())
