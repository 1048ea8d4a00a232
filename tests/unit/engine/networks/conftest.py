"""Tiny checkpoints, built once: what a test merges it must take out again."""

import pytest

from tests.models.networks import Tiny, make_tiny


@pytest.fixture(scope="package")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny("sd1", tmp_path_factory.mktemp("sd1"))


@pytest.fixture(scope="package")
def sd2(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny("sd2", tmp_path_factory.mktemp("sd2"))


@pytest.fixture(scope="package")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny("sdxl", tmp_path_factory.mktemp("sdxl"))
