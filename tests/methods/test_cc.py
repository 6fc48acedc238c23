"""CC's losses against an oracle written from the paper's equations, and what its switches do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of
from helpers.oracles import nt_xent_oracle, numerical_gradient

from jaxclust import nets
from jaxclust.methods import cc
from jaxclust.run import config
from jaxclust.run.errors import ConfigError
from jaxclust.types import Batch, DataSpec, Pass

B, K, SIZE = 12, 4, 8


def setup(splits=None, **settings):
    """A small CC: (method, arguments of a loss)."""
    cfg = config.load(config_of("cc"), {"clusters": str(K), "net.width": "2", "net.depth": "18", "net.stem": "cifar"})
    with cfg.method.ignore_type():
        cfg.method.update({"tau_instance": 0.5, "tau_cluster": 1.0, "instance": 1.0, "cluster": 1.0} | settings)
    if splits:
        cfg.data.splits = splits
    method = cc.make(cfg)
    params, stats, memory = method.init(jax.random.key(0), DataSpec(100, SIZE, 1))
    # Far from uniform, so that each term of the loss has something to say.
    params["g_c"]["linear2"]["kernel"] = 20 * params["g_c"]["linear2"]["kernel"]
    views = tuple(jax.random.uniform(jax.random.key(i), (B, SIZE, SIZE, 1)) for i in range(2))
    return method, (params, stats, memory, Batch(jnp.arange(B), views, jnp.asarray(0)), jax.random.key(2))


def outputs(args):
    """z and y of both views, from the networks in training mode, in float64."""
    params, stats, _, batch, _ = args
    f = nets.ResNet(depth=18, stem="cifar", width=2)
    z, y = [], []
    for x in batch.views:
        h, _ = f.apply({"params": params["f"], "batch_stats": stats}, x, train=True, mutable=["batch_stats"])
        z.append(np.asarray(nets.MLP(16, 128).apply({"params": params["g_i"]}, h), np.float64))
        logits = np.asarray(nets.MLP(16, K).apply({"params": params["g_c"]}, h), np.float64)
        y.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    return z, y


def cluster_oracle(y_a, y_b, tau, self_term=False):
    """Eq. 4 to 6, a column at a time, with the entropy's sign turned round."""
    loss = nt_xent_oracle(y_a.T, y_b.T, tau, self_term)
    for y in (y_a, y_b):
        for k in range(K):
            p = y[:, k].sum() / np.abs(y).sum()
            loss += p * np.log(p)
        loss += np.log(K)
    return loss


@pytest.mark.parametrize("self_term", [False, True])
def test_loss_equals_the_oracle(self_term):
    method, args = setup(self_term=self_term, instance=2.0, cluster=0.5)
    loss, out = method.tasks["both"].loss(*args)
    (z_a, z_b), (y_a, y_b) = outputs(args)
    instance, cluster = nt_xent_oracle(z_a, z_b, 0.5, self_term), cluster_oracle(y_a, y_b, 1.0, self_term)
    np.testing.assert_allclose(out.metrics["instance"], instance, rtol=1e-5)
    np.testing.assert_allclose(out.metrics["cluster"], cluster, rtol=1e-5)
    np.testing.assert_allclose(loss, 2 * instance + 0.5 * cluster, rtol=1e-5)
    assert out.metrics["sizes"].sum() == B


def test_gradient_of_the_cluster_loss_equals_the_oracles():
    """With respect to the last layer's bias, whose effect on y is known: softmax(logits + bias)."""
    method, args = setup(instance=0.0)
    gradient = jax.grad(lambda params: method.tasks["both"].loss(params, *args[1:])[0])(args[0])
    _, y = outputs(args)

    def shifted(bias):
        moved = [v * np.exp(bias) / (v * np.exp(bias)).sum(axis=1, keepdims=True) for v in y]
        return cluster_oracle(*moved, 1.0)

    expected = numerical_gradient(shifted, np.zeros(K))
    np.testing.assert_allclose(gradient["g_c"]["linear2"]["bias"], expected, rtol=1e-4, atol=1e-6)


def test_cluster_loss_does_not_care_how_clusters_are_numbered():
    method, args = setup()
    order = np.asarray([2, 0, 3, 1])
    last = args[0]["g_c"]["linear2"]
    last = {"kernel": last["kernel"][:, order], "bias": last["bias"][order]}
    renamed = args[0] | {"g_c": args[0]["g_c"] | {"linear2": last}}
    a, b = (method.tasks["both"].loss(p, *args[1:])[1].metrics["cluster"] for p in (args[0], renamed))
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_the_entropy_term_rewards_even_clusters():
    even, uneven = np.full((8, 4), 0.25, np.float32), np.eye(4, dtype=np.float32)[np.zeros(8, int)]
    np.testing.assert_allclose(cc.unevenness(even), 0, atol=1e-6)
    np.testing.assert_allclose(cc.unevenness(uneven), np.log(4), rtol=1e-6)


def test_one_head_alone_leaves_the_other_untrained():
    for weights, idle in (({"cluster": 0.0}, "g_c"), ({"instance": 0.0}, "g_i")):
        method, args = setup(**weights)
        gradient = jax.grad(lambda params, m=method, a=args: m.tasks["both"].loss(params, *a[1:])[0])(args[0])
        assert all(not np.any(g) for g in jax.tree.leaves(gradient[idle]))
        assert all(np.any(g) for g in jax.tree.leaves(gradient["f"]["stem"]["conv"]))


def test_an_epoch_of_stl10_is_two_passes():
    splits = {"train": "train+test", "unlabelled": "unlabelled"}
    method, args = setup(splits, instance_split="unlabelled")
    assert method.plan(0) == (Pass("instance", "unlabelled"), Pass("both", "train"))
    loss, _ = method.tasks["instance"].loss(*args)
    z, _ = outputs(args)
    np.testing.assert_allclose(loss, nt_xent_oracle(*z, 0.5), rtol=1e-5)


def test_prediction_is_the_cluster_head_with_running_statistics():
    method, (params, stats, _, batch, _) = setup()
    one = method.predict(params, stats, {}, batch.views[0][:1])
    all_of_them = method.predict(params, stats, {}, batch.views[0])
    np.testing.assert_allclose(one.q[0], all_of_them.q[0], rtol=1e-5)
    np.testing.assert_allclose(np.sum(all_of_them.q, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"views": ("strong",)}, "method.views is ('strong',); CC takes two"),
        ({"tau_cluster": 0.0}, "method.tau_cluster is 0.0; it must be above 0"),
        ({"instance": 0.0, "cluster": 0.0}, "both 0"),
        ({"instance_split": "unlabelled"}, "method.instance_split is 'unlabelled', which is not in data.splits"),
    ],
)
def test_bad_settings_are_refused_with_a_sentence(settings, sentence):
    with pytest.raises(ConfigError) as e:
        setup(**settings)
    assert sentence in str(e.value)
