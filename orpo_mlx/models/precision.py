"""How exact float32 products are: a GPU with matrix units may round their factors to TF32.

MLX allows it unless MLX_ENABLE_TF32 is 0 (mlx/utils.h). It looks at the variable once a process, at
the first product of float32 on such a GPU (Apple's from the M5 on, Nvidia's from Ampere on), so it
is set before a model is loaded; a CPU never looks. What came of it is measured, not believed.
"""

from __future__ import annotations

import os

import numpy as np

from orpo_mlx.errors import ConfigError

VARIABLE = "MLX_ENABLE_TF32"

EXACT_PRODUCT = 1e-5
"""Largest relative error of an exact product: float32 comes to 1e-7, TF32 to 3e-4 or more."""
ROUNDED_PRODUCT = 2e-3
"""Largest relative error of a product whose factors have the 10 bits of TF32."""


def choose_float32(wanted: str) -> str:
    """Have MLX compute float32 products as a run asks for; to be called before a model is loaded.

    Args:
        wanted: the setting `float32`, exact or fast.

    Returns:
        What the user should know: that the environment said otherwise; "" if it did not.
    """
    value, found = ("1" if wanted == "fast" else "0"), os.environ.get(VARIABLE)
    os.environ[VARIABLE] = value
    if found is None or (found.strip() == "0") == (value == "0"):
        return ""
    return f"the environment has {VARIABLE}={found:.20}; --float32 {wanted} decides: {value}"


def product_error(size: int = 256) -> float:
    """Return the relative error, by norm, of a product of known float32 matrices [size, size]."""
    import mlx.core as mx

    draw = np.random.default_rng(0)
    one, other = (draw.standard_normal((size, size), np.float32) for _ in range(2))
    wanted = one.astype(np.float64) @ other.astype(np.float64)
    found = np.array(mx.array(one) @ mx.array(other), np.float64)
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def has_exact_products() -> bool:
    """Tell whether products of float32 are exact in this process."""
    return product_error() <= EXACT_PRODUCT


def require_float32(wanted: str) -> float:
    """Return the error of a product, measured.

    Raises:
        ConfigError: exact ones are asked for, and this process does not compute them.
    """
    error = product_error()
    if wanted == "exact" and not error <= EXACT_PRODUCT:
        raise ConfigError(
            f"--float32 exact: products have a relative error of {error:.0e} here, exact ones "
            f"1e-07. MLX read {VARIABLE} before this training could set it to 0.",
            "Start it in a process of its own, python -m orpo_mlx.train, or take --float32 fast.",
        )
    return error
