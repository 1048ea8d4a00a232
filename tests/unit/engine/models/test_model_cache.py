from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

from sdapi.engine.models.model_cache import ModelCache
from sdapi.errors import ModelUnusable

CPU, GPU = torch.device("cpu"), torch.device("meta")


@dataclass
class Model:
    """Ten bytes that remember where they were moved."""

    size_bytes: int = 10
    moves: list[torch.device] = field(default_factory=list)

    def move(self, device: torch.device) -> None:
        self.moves.append(device)


def cache(ram: int, device_bytes: int = 0, device: torch.device = CPU) -> ModelCache[Model]:
    return ModelCache(device, ram, device_bytes)


def touch(models: ModelCache[Model], key: str, load: Callable[[], Model] = Model) -> Model:
    with models.use(key, load) as model:
        return model


def test_model_is_loaded_once():
    models = cache(100)
    assert touch(models, "a") is touch(models, "a", pytest.fail)


def test_least_recently_used_goes_first():
    models = cache(20)
    for key in ("a", "b", "a", "c"):
        touch(models, key)
    assert [key in models for key in "abc"] == [True, False, True]
    assert models.size_bytes == 20


def test_model_in_use_stays_whatever_the_budget():
    models = cache(10)
    with models.use("a", Model):
        with models.use("b", Model):
            assert "a" in models
            assert "b" in models
            assert models.size_bytes == 20
        touch(models, "c")
        assert "a" in models
    touch(models, "d")
    assert models.size_bytes == 10


def test_model_larger_than_the_budget_is_kept_alone():
    models = cache(15)
    touch(models, "a")
    touch(models, "huge", lambda: Model(1000))
    assert "a" not in models
    assert "huge" in models


def test_load_that_fails_leaves_everything_as_it_was():
    models = cache(20)
    kept = [touch(models, key) for key in "ab"]

    def fail() -> Model:
        raise ModelUnusable("broken")

    with pytest.raises(ModelUnusable), models.use("c", fail):
        pytest.fail("must not run")
    assert "c" not in models
    assert [touch(models, key, pytest.fail) for key in "ab"] == kept


def test_job_that_fails_gives_its_model_free():
    models = cache(10)
    with pytest.raises(RuntimeError), models.use("a", Model):
        raise RuntimeError
    touch(models, "b")
    assert "a" not in models


def test_clear_drops_what_is_not_in_use():
    models = cache(100)
    touch(models, "a")
    with models.use("b", Model):
        models.clear()
        assert "b" in models
    assert "a" not in models


def test_device_tier_sends_the_oldest_to_main_memory_and_brings_it_back():
    models = cache(100, 20, GPU)
    one = touch(models, "a")
    touch(models, "b")
    touch(models, "c")
    assert one.moves == [GPU, CPU]
    assert touch(models, "a", pytest.fail) is one
    assert one.moves == [GPU, CPU, GPU]
