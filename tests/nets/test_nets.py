"""Networks against PyTorch (fixtures/make_resnet.py), and what training relies on besides the numbers."""

import dataclasses
import math
import re
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jaxclust import nets
from jaxclust.run.schema import settings

TORCH = np.load(Path(__file__).parent.parent / "fixtures" / "resnet.npz")
SHAPES = {"imagenet": (8, 65, 65, 3), "cifar": (8, 33, 33, 3), "mmdc": (8, 28, 28, 1)}
QUICK = {"xla_backend_optimization_level": 0}  # these tests mostly compile
SETTINGS = nets.Settings(depth=18, stem="cifar", width=4, dtype="float32", remat=False, init_from="")


def draw(name, shape):
    """Uniform numbers of mean 0 and variance 1, as in make_resnet.py."""
    bits = np.random.Philox(zlib.crc32(name.encode())).random_raw(math.prod(shape)) >> np.uint64(11)
    return ((bits / 2.0**53 - 0.5) * math.sqrt(12)).reshape(shape).astype(np.float32)


def weight(name, shape):
    """The weight of this name, as in make_resnet.py."""
    match name.rsplit("/", 1)[-1]:
        case "kernel":
            return draw(name, shape) * math.sqrt(2 / (shape[0] * shape[1] * shape[3]))
        case "scale" | "var":
            return 1 + 0.2 * draw(name, shape)
        case _:
            return 0.2 * draw(name, shape)


def shapes(net, channels=3):
    """Shapes of parameters and statistics, without computing any."""
    x = jax.ShapeDtypeStruct((2, 32, 32, channels), jnp.float32)
    return jax.eval_shape(lambda key, x: net.init(key, x, train=False), jax.random.key(0), x)


def fixed(net, channels=3):
    """Parameters and statistics drawn from their names."""
    tree = shapes(net, channels)
    flat = {part: traverse_util.flatten_dict(tree[part], sep="/") for part in tree}
    drawn = {part: {k: weight(k, v.shape) for k, v in leaves.items()} for part, leaves in flat.items()}
    return [traverse_util.unflatten_dict(drawn[part], sep="/") for part in ("params", "batch_stats")]


def train_step(net):
    """(params, stats, x, dh) -> gradient of sum(h dh), h and the new statistics."""

    def loss(params, stats, x, dh):
        variables = {"params": params, "batch_stats": stats}
        h, new = net.apply(variables, x, train=True, mutable=["batch_stats"])
        return (h * dh).sum(), (h, new["batch_stats"])

    return jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICK)


@pytest.mark.parametrize(
    ("depth", "stem"),
    [
        *((18, stem) for stem in ("imagenet", "cifar", "mmdc")),
        *(pytest.param(34, stem, marks=pytest.mark.slow) for stem in ("imagenet", "cifar", "mmdc")),
        pytest.param(50, "imagenet", marks=pytest.mark.slow),
    ],
)
def test_resnet_equals_torch_in_eval_in_training_in_statistics_and_in_gradient(depth, stem):
    want = {key: TORCH[f"resnet{depth}_{stem}/{key}"] for key in ("eval", "train1", "train2", "stats", "gradient")}
    x1, x2 = draw("x1", SHAPES[stem]), draw("x2", SHAPES[stem])
    net = nets.ResNet(depth, stem, width=4)
    params, stats = fixed(net, x1.shape[-1])
    embed = jax.jit(lambda variables: net.apply(variables, x1, train=False), compiler_options=QUICK)
    h = embed({"params": params, "batch_stats": stats})
    step, dh = train_step(net), draw("dh", h.shape)
    _, (h1, stats) = step(params, stats, x1, dh)
    gradient, (h2, stats) = step(params, stats, x2, dh)
    flat = traverse_util.flatten_dict(stats, sep="/")

    assert h.shape == (8, net.features)
    np.testing.assert_allclose(h, want["eval"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(h1, want["train1"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(h2, want["train2"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.concatenate([flat[k] for k in sorted(flat)]), want["stats"], rtol=1e-4, atol=1e-4)
    # Rounding may put one ReLU of the deep network on the other side of zero, and the gradient jumps.
    error = np.abs(gradient["stem"]["conv"]["kernel"] - want["gradient"]).max()
    assert error < 0.02 * np.abs(want["gradient"]).max()


def test_batch_norm_and_its_gradients_equal_torch():
    x, dy = draw("x", (3, 2, 2, 5)) + 4, draw("dy", (3, 2, 2, 5))
    params = {"scale": weight("scale", (5,)), "bias": weight("bias", (5,))}
    stats = {"mean": jnp.zeros(5), "var": jnp.ones(5)}

    def norm(params, x):
        variables = {"params": params, "batch_stats": stats}
        return nets.BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])

    y, pullback, new = jax.vjp(norm, params, x, has_aux=True)
    dparams, dx = pullback(dy)
    got = {"y": y, "dx": dx, "dscale": dparams["scale"], "dbias": dparams["bias"], **new["batch_stats"]}
    for name, value in got.items():
        np.testing.assert_allclose(value, TORCH[f"batch_norm/{name}"], rtol=1e-4, atol=1e-4, err_msg=name)


def test_batch_norm_refuses_to_train_on_one_value_per_channel():
    x = jnp.zeros((1, 1, 1, 4))
    variables = nets.BatchNorm().init(jax.random.key(0), x, train=True)
    with pytest.raises(ValueError, match="larger batch"):
        nets.BatchNorm().apply(variables, x, train=True, mutable=["batch_stats"])


def test_remat_changes_neither_names_nor_numbers():
    x, dh = draw("x", (8, 17, 17, 3)), draw("dh", (8, 32))
    plain, remat = (nets.backbone(dataclasses.replace(SETTINGS, remat=remat)) for remat in (False, True))
    assert shapes(plain) == shapes(remat)
    params, stats = fixed(plain)
    got, want = (train_step(net)(params, stats, x, dh) for net in (remat, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, want)


def test_remat_keeps_less_for_the_backward_pass():
    def kept(net):
        tree = shapes(net)
        x = jax.ShapeDtypeStruct((128, 32, 32, 3), jnp.float32)

        def pullback(params, stats, x):
            def embed(params):
                return net.apply({"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"])

            return jax.vjp(embed, params, has_aux=True)[1]

        residuals = jax.eval_shape(pullback, tree["params"], tree["batch_stats"], x)
        return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(residuals))

    # Counted before compilation: what XLA compiles for CPU needs as much memory as without remat.
    assert kept(nets.ResNet(18, "cifar", remat=True)) < 0.3 * kept(nets.ResNet(18, "cifar"))


def test_bfloat16_is_for_computing_only():
    net = nets.ResNet(18, "cifar", width=4, dtype=jnp.bfloat16)
    params, stats = fixed(net)
    x = draw("x1", SHAPES["cifar"])
    gradient, (h, new) = train_step(net)(params, stats, x, draw("dh", (8, 32)))
    assert {a.dtype for a in jax.tree.leaves((shapes(net), gradient, h, new))} == {jnp.dtype("float32")}
    assert 1e-4 < np.abs(h - TORCH["resnet18_cifar/train1"]).max() < 0.1


@pytest.mark.parametrize(("depth", "count"), [(18, 11176512), (34, 21284672), (50, 23508032)])
def test_standard_networks_have_as_many_parameters_as_torchvision(depth, count):
    assert sum(a.size for a in jax.tree.leaves(shapes(nets.ResNet(depth, "imagenet"))["params"])) == count


@pytest.mark.parametrize(("kernel_init", "axis"), [(nets.kaiming_fan_out, 3), (nets.kaiming_fan_in, 2)])
def test_convolutions_start_with_kaiming_variance(kernel_init, axis):
    net = nets.ResNet(18, "cifar", width=16, kernel_init=kernel_init)

    @jax.jit
    def init(key):  # the rest is not computed
        params = net.init(key, jnp.zeros((1, 8, 8, 3)), train=False)["params"]
        return params["stem"]["bn"], params["stage3_block1"]

    bn, block = init(jax.random.key(0))
    for name in ("conv1", "conv2", "shortcut_conv"):
        kernel = block[name]["kernel"]  # f32[h, w, in, out]
        variance = 2 / (kernel.shape[0] * kernel.shape[1] * kernel.shape[axis])
        np.testing.assert_allclose(kernel.var(), variance, rtol=0.1)
        assert np.abs(kernel).max() > 3 * variance**0.5  # normal, not truncated or uniform
    np.testing.assert_array_equal(bn["scale"], 1)
    np.testing.assert_array_equal(bn["bias"], 0)


def test_vgg_is_four_times_convolution_norm_relu_and_pool():
    net = nets.VGG(width=2)
    params, stats = fixed(net)
    x = draw("x", (3, 32, 32, 3))
    want = x.astype(np.float64)
    for i in range(4):
        block, norm, running = params[f"block{i + 1}"], params[f"block{i + 1}"]["bn"], stats[f"block{i + 1}"]["bn"]
        padded = np.pad(want, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))  # [B, H, W, C, 3, 3]
        want = np.einsum("bhwcij,ijcd->bhwd", windows, block["conv"]["kernel"])
        want = (want - running["mean"]) / np.sqrt(running["var"] + 1e-5) * norm["scale"] + norm["bias"]
        b, side, _, c = want.shape
        want = np.maximum(want, 0).reshape(b, side // 2, 2, side // 2, 2, c).max((2, 4))
    h = net.apply({"params": params, "batch_stats": stats}, x, train=False)
    np.testing.assert_allclose(h, want.reshape(3, -1), rtol=1e-4, atol=1e-4)
    assert h.shape == (3, net.features)


@pytest.mark.parametrize("size", [16, 28, 32, 64])
def test_vgg_is_as_wide_for_any_image(size):
    net = nets.VGG()  # MMDC's
    x = jax.ShapeDtypeStruct((2, size, size, 1), jnp.float32)
    h, _ = jax.eval_shape(lambda key, x: net.init_with_output(key, x, train=False), jax.random.key(0), x)
    assert h.shape == (2, net.features) == (2, 1024)


def test_vgg_refuses_an_image_that_has_no_four_places_left():
    with pytest.raises(ValueError, match="the images are 8 x 8; the VGG takes 16 pixels or more"):
        nets.VGG().init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_mlp_is_two_linear_layers_that_start_as_torch_starts_them(dtype):
    h = draw("h", (6, 100))
    mlp = nets.MLP(hidden=400, out=50, dtype=dtype)
    params = mlp.init(jax.random.key(0), h)["params"]
    for name, fan_in in ("linear1", 100), ("linear2", 400):
        for leaf in params[name].values():
            assert leaf.dtype == jnp.float32
            assert 0.9 * fan_in**-0.5 < np.abs(leaf).max() <= fan_in**-0.5
        np.testing.assert_allclose(params[name]["kernel"].var(), 1 / (3 * fan_in), rtol=0.05)
    got = mlp.apply({"params": params}, h)
    one, two = params["linear1"], params["linear2"]
    want = np.maximum(h @ one["kernel"] + one["bias"], 0) @ two["kernel"] + two["bias"]
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=1e-5 if dtype == jnp.float32 else 0.02)


def test_backbone_builds_what_the_settings_say():
    settings = dataclasses.replace(SETTINGS, depth=50, dtype="bfloat16", remat=True)
    net = nets.backbone(settings, nets.kaiming_fan_in)
    assert net == nets.ResNet(50, "cifar", 4, jnp.bfloat16, True, nets.kaiming_fan_in)
    assert net.features == 128
    small = nets.backbone(
        nets.Settings(depth=4, stem="vgg", width=8, dtype="bfloat16", remat=True, init_from=""), nets.kaiming_fan_in
    )
    assert small == nets.VGG(8, jnp.bfloat16, True, nets.kaiming_fan_in)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("depth", 20, "net.depth is 20; choose one of 4, 18, 34, 50"),
        ("stem", "alexnet", "net.stem is 'alexnet'; choose one of imagenet, cifar, mmdc, vgg"),
        ("depth", 4, "net.depth is 4 and net.stem is cifar; 4 and vgg go together only"),
        ("stem", "vgg", "net.depth is 18 and net.stem is vgg; 4 and vgg go together only"),
        ("dtype", "float16", "net.dtype is 'float16'; choose one of float32, bfloat16"),
        ("remat", "no", "net.remat is 'no', which is not True or False"),
        ("width", 0, "net.width is 0; it must be at least 1"),
    ],
)
def test_a_wrong_setting_is_named_with_its_choices(name, value, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        settings(nets.Settings, dataclasses.asdict(SETTINGS) | {name: value}, "net")
