"""The folder of the twin on the path, and random numbers with a fixed seed, for all tests of the kernels."""

import pathlib
import sys
import zlib

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).with_name("twin")))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers: others for each test, the same in every run."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))
