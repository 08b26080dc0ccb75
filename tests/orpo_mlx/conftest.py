"""What the core's tests share beyond the tiny models."""

import shutil

import pytest


@pytest.fixture(scope="session")
def has_compiler():
    """Whether MLX can compile on this machine's CPU: it calls a C++ compiler."""
    return shutil.which("g++") is not None or shutil.which("c++") is not None
