"""Functions of single numbers: their values and gradients in float64, and what they keep."""

import mlx.core as mx
import numpy as np
import pytest

from orpo_mlx.models import activations
from orpo_mlx.models.activations import exp, swiglu

SHAPE = (64, 300)


@pytest.fixture(params=["cpu", "gpu"])
def device(request, monkeypatch):
    """Take the way of that device; the numbers are the CPU's in both."""
    monkeypatch.setattr(activations, "is_on_gpu", lambda: request.param == "gpu")


@pytest.fixture
def given():
    random = np.random.default_rng(0)
    gate, up, cotangent = random.normal(size=(3, *SHAPE))
    gate *= 6
    gate[0, :4] = -120, -50, 50, 120  # where exp overflows, and where nothing is left of it
    return gate, up, cotangent


def computed(gate, up, cotangent, dtype):
    primals = [mx.array(x).astype(dtype) for x in (gate, up)]
    found = mx.vjp(swiglu, primals, [mx.array(cotangent).astype(dtype)])
    return [np.array(x.astype(mx.float32)) for part in found for x in part]


def by_definition(gate, up, cotangent):
    sigmoid = 1 / (1 + np.exp(-gate))
    slope = sigmoid * (1 + gate * (1 - sigmoid))
    return gate * sigmoid * up, cotangent * up * slope, cotangent * gate * sigmoid


@pytest.mark.parametrize(("dtype", "tolerance"), [(mx.float32, 2e-6), (mx.bfloat16, 3e-2)])
def test_value_and_gradient_are_those_of_the_definition(dtype, tolerance, given, device):
    rounded = [np.array(mx.array(x).astype(dtype).astype(mx.float32), np.float64) for x in given]
    for found, wanted in zip(computed(*given, dtype), by_definition(*rounded), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kinds", [(mx.bfloat16, mx.float32), (mx.float32, mx.bfloat16)])
def test_each_argument_has_a_gradient_of_its_own_kind(kinds, given, device):
    """As MLX gives them: a gate in half precision beside a state in float32 stays in it."""
    primals = [mx.array(x).astype(dtype) for x, dtype in zip(given, kinds, strict=False)]
    (value,), gradients = mx.vjp(swiglu, primals, [mx.array(given[2])])
    assert value.dtype == mx.float32
    assert tuple(gradient.dtype for gradient in gradients) == kinds


def test_exp_is_as_exact_as_that_of_mlx(device):
    x = np.linspace(-80, 5, 20_001, dtype=np.float32)
    wanted = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(np.array(exp(mx.array(x))), wanted, rtol=8e-6)
    assert np.array(exp(mx.array([-2000.0, 0.0]))).tolist() == [0.0, 1.0]


def test_nothing_but_the_two_arguments_waits_for_the_backward_pass(device):
    size = 1 << 20

    def made(x):
        return [x * 2, x * 3]

    def loss(x):
        return swiglu(*made(x)).sum()

    x = mx.ones(size)
    mx.eval(x)
    before = mx.get_active_memory()
    value, gradient = mx.value_and_grad(loss)(x)
    mx.eval(value)
    assert mx.get_active_memory() - before < 2.5 * 4 * size
    mx.eval(gradient)
