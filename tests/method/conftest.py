"""Tiny models of every architecture, made once for all tests of the method."""

from __future__ import annotations

import pytest

from erasmo_dagster.method.base_models import LocalModel, resolve
from tests.tiny_models import ARCHITECTURES, tiny_causal_lm


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalModel]:
    root = tmp_path_factory.mktemp("models")
    return {
        arch: resolve(f"path:{tiny_causal_lm(root / arch, arch=arch)}", root / "unpacked") for arch in ARCHITECTURES
    }


@pytest.fixture
def base(models: dict[str, LocalModel]) -> LocalModel:
    return models["llama"]
