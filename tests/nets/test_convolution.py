"""Convolutions and gradients as matrix products: what XLA's own gives, and nothing of it where it is not wanted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxclust.nets import convolution
from jaxclust.nets.layers import conv

# places a side, taps, stride: whatever a ResNet or the VGG brings below three places, and what is around it
SMALL = [(1, 3, 1), (2, 3, 1), (2, 3, 2), (3, 3, 2), (4, 3, 2), (1, 3, 2), (4, 7, 2), (2, 7, 2), (1, 1, 1), (2, 1, 2)]
IMAGE = 5 * 5 * 3 * 3 * 4 * 4  # bytes of the columns of a 5x5 image
LARGE = [(3, 3, 1), (5, 3, 2), (8, 3, 2), (8, 7, 2)]


def both(size, taps, stride, dtype=jnp.float32, batch=3):
    """(ours, XLA's, image, kernel) of one layer."""
    layer = conv(5, taps, stride, dtype=dtype)
    x = jax.random.normal(jax.random.key(0), (batch, *((size,) * 2 if np.isscalar(size) else size), 4))
    kernel = layer.init(jax.random.key(1), x)["params"]["kernel"]
    plain = layer.clone(conv_general_dilated=None)
    return *(lambda x, k, of=of: of.apply({"params": {"kernel": k}}, x) for of in (layer, plain)), x, kernel


@pytest.fixture(params=[1, 8])
def devices(request, monkeypatch):
    """As many as a program believes that there are; on one alone a kernel's gradient is made of columns."""
    monkeypatch.setattr(jax, "device_count", lambda: request.param)
    return request.param


@pytest.fixture
def on_one_device(monkeypatch):
    """`monkeypatch`, for the limits of columns; what is traced under those of a test is forgotten with them."""
    with monkeypatch.context() as patch:
        patch.setattr(jax, "device_count", lambda: 1)
        jax.clear_caches()
        yield patch
    jax.clear_caches()


@pytest.mark.usefixtures("devices")
@pytest.mark.parametrize(("size", "taps", "stride"), [*SMALL, ((1, 4), 3, 2), ((4, 2), 3, 2), *LARGE])
def test_values_and_gradients_are_those_of_a_convolution(size, taps, stride):
    the_same(*both(size, taps, stride))


def the_same(ours, plain, x, kernel):
    """Asserts that both layers have the same values and gradients."""
    y, pull = jax.vjp(ours, x, kernel)
    expected, pull_expected = jax.vjp(plain, x, kernel)
    assert y.shape == expected.shape
    g = jax.random.normal(jax.random.key(2), y.shape)
    for got, want in zip((y, *pull(g)), (expected, *pull_expected(g)), strict=True):
        # Of the largest: a sum of so many products is rounded by its largest terms, and by each processor otherwise.
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6 * np.abs(want).max(initial=1))


@pytest.mark.parametrize(("batch", "columns"), [(1, 1), (6, 1), (7, 3 * IMAGE), (12, 5 * IMAGE), (12, 2**21)])
def test_a_kernels_gradient_is_the_sum_over_parts_of_any_number_of_images(batch, columns, on_one_device):
    on_one_device.setattr(convolution, "COLUMNS", columns)
    the_same(*both(5, 3, 1, batch=batch))


def test_a_stems_gradient_is_made_of_columns_where_that_pays(on_one_device):
    on_one_device.setattr(convolution, "PAYS", 3 * 4 * 4 * 7 * 7 * 4 * 4)  # bytes of three images of 8x8
    ours, plain, x, kernel = both(8, 7, 2)
    for batch, loops in (2, False), (3, True):
        made = jax.make_jaxpr(jax.grad(lambda kernel, x: ours(x, kernel).sum()))(kernel, x[:batch])
        assert ("scan" in str(made)) == loops
    the_same(ours, plain, x, kernel)


@pytest.mark.parametrize(("size", "taps", "stride"), [(2, 3, 1), (4, 3, 2)])
def test_half_precision_is_rounded_once(size, taps, stride):
    ours, plain, x, kernel = both(size, taps, stride, jnp.bfloat16)
    y = ours(x, kernel)
    assert y.dtype == jnp.bfloat16
    exact = plain(*(v.astype(jnp.bfloat16).astype(jnp.float32) for v in (x, kernel)))
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=2**-7, atol=1e-2)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize(("size", "taps", "stride"), [*SMALL, *LARGE])
def test_products_are_for_a_cpu_alone(platform, size, taps, stride, devices):
    ours, plain, x, kernel = both(size, taps, stride)

    def program(layer):
        def gradients(x, kernel):
            return jax.grad(lambda *at: (layer(*at) ** 2).sum(), (0, 1))(x, kernel)

        text = export.export(jax.jit(gradients), platforms=[platform])(x, kernel).mlir_module()
        return {op: text.count(f"stablehlo.{op}") for op in ("convolution", "dot_general")}

    small = platform == "cpu" and (size, taps, stride) in SMALL
    assert (program(ours)["convolution"] == 0) == small
    by_columns = platform == "cpu" and devices == 1 and taps == 3  # a stem's would take long to compile
    assert small or by_columns or program(ours) == program(plain)
    assert small or not by_columns or program(ours)["dot_general"] == 1


def test_groups_and_dilations_are_left_to_xla():
    x = jnp.ones((1, 2, 2, 4))
    for changes in ({"feature_group_count": 2}, {"kernel_dilation": 2}, {"input_dilation": 2}):
        layer = conv(4, 3).clone(**changes)
        made, variables = layer.init_with_output(jax.random.key(0), x)
        np.testing.assert_array_equal(made, layer.clone(conv_general_dilated=None).apply(variables, x))


def test_any_number_of_images_can_be_exported():
    ours, _, _, kernel = both(2, 3, 1)
    (batch,) = export.symbolic_shape("b")
    made = export.export(jax.jit(ours))(jax.ShapeDtypeStruct((batch, 2, 2, 4), jnp.float32), kernel)
    assert made.call(jnp.ones((7, 2, 2, 4)), kernel).shape == (7, 2, 2, 5)
