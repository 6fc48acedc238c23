"""Anchor's loss against an oracle of its terms, its switches, and where gradients flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, config_of
from helpers.oracles import dec_target_oracle, nt_xent_oracle, student_t_oracle

from jaxclust import nets
from jaxclust.methods import anchor
from jaxclust.run import config
from jaxclust.run.errors import ConfigError
from jaxclust.types import Batch, DataSpec

B, K, SIZE = 12, 4, 8
PAPER = {"space": "backbone", "init_epoch": 0, "instance": 20.0, "cluster": 0.1, "anchor": 0.1, "tau": 0.5}


def setup(step=0, **settings):
    """A small Anchor with centres among its features: (method, arguments of a loss)."""
    cfg = config.load(
        config_of("anchor"), {"clusters": str(K), "net.width": "2", "net.depth": "18", "net.stem": "cifar"}
    )
    with cfg.method.ignore_type():
        cfg.method.update(PAPER | settings)
    method = anchor.make(cfg)
    params, stats, memory = method.init(jax.random.key(0), DataSpec(100, SIZE, 1))
    params["mu"] = 0.5 * jax.random.normal(jax.random.key(1), params["mu"].shape)
    views = tuple(jax.random.uniform(jax.random.key(i), (B, SIZE, SIZE, 1)) for i in range(3))
    return method, (params, stats, memory, Batch(jnp.arange(B), views, jnp.asarray(step)), jax.random.key(2))


def kl(p, q):
    return np.mean(np.sum(p * np.log(p / q), axis=1))


def oracle(method, args, space="backbone", scale=1.0):
    """h, z, q and p of the three views, from the network's outputs in training mode, in float64."""
    params, stats, _, batch, _ = args
    h, z, q = [], [], []
    for x in batch.views:
        got = features(params, stats, x)
        h.append(got[0])
        z.append(got[1])
        located = h[-1] if space == "backbone" else scale * z[-1] / np.linalg.norm(z[-1], axis=1, keepdims=True)
        q.append(student_t_oracle(located, np.asarray(params["mu"], np.float64), 1.0))
    return h, z, q, [dec_target_oracle(q_v) for q_v in q]


def features(params, stats, x):
    f = nets.ResNet(depth=18, stem="cifar", width=2)
    h, _ = f.apply({"params": params["f"], "batch_stats": stats}, x, train=True, mutable=["batch_stats"])
    z = nets.MLP(hidden=16, out=128).apply({"params": params["g_i"]}, h)
    return np.asarray(h, np.float64), np.asarray(z, np.float64)


def expected_anchor(name, q, p):
    if name == "q0_q":
        return kl(q[0], q[1]) + kl(q[0], q[2])
    if name == "p0_q":
        return kl(p[0], q[1]) + kl(p[0], q[2])
    if name == "p_q":
        return kl(p[1], q[2]) + kl(p[2], q[1])
    m = (q[1] + q[2]) / 2
    return 0.5 * (kl(q[1], m) + kl(q[2], m))


@pytest.mark.parametrize("anchor_loss", anchor.ANCHORS)
@pytest.mark.parametrize(("space", "scale"), [("backbone", 1.0), ("projection", 3.0)])
def test_loss_equals_the_oracle(anchor_loss, space, scale):
    method, args = setup(anchor_loss=anchor_loss, space=space, scale=scale)
    loss, out = method.tasks["cluster"].loss(*args)
    _, z, q, p = oracle(method, args, space, scale)
    terms = {
        "instance": nt_xent_oracle(z[1], z[2], 0.5),
        "cluster": kl(p[0], q[0]),
        "anchor": expected_anchor(anchor_loss, q, p),
    }
    for name, value in terms.items():
        np.testing.assert_allclose(out.metrics[name], value, rtol=2e-5, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(loss, 20 * terms["instance"] + 0.1 * (terms["cluster"] + terms["anchor"]), rtol=2e-5)


def test_contrast_is_the_instance_loss_alone():
    method, args = setup(init_epoch=1)
    params, stats, memory, batch, key = args
    batch = batch._replace(views=batch.views[1:])
    loss, _ = method.tasks["contrast"].loss(params, stats, memory, batch, key)
    _, z, _, _ = oracle(method, args)
    np.testing.assert_allclose(loss, 20 * nt_xent_oracle(z[1], z[2], 0.5), rtol=2e-5)


@pytest.mark.parametrize("stop", [True, False])
def test_stop_gradient_is_a_switch_on_the_anchor(stop):
    """With the gradient stopped, q0 in the anchor is a constant: only x0 can tell, so perturb it."""
    method, args = setup(instance=0.0, cluster=0.0, anchor=1.0, stop_gradient=stop)
    params, stats, memory, batch, key = args

    def loss_at(x0):
        seen = batch._replace(views=(x0, *batch.views[1:]))
        return method.tasks["cluster"].loss(params, stats, memory, seen, key)[0]

    gradient = np.abs(jax.grad(loss_at)(batch.views[0])).max()
    assert (gradient == 0) == stop


def test_no_gradient_flows_through_the_target():
    """d/dmu of KL(p || q) with p held fixed, against a numerical derivative of the oracle with p held fixed."""
    method, args = setup(instance=0.0, cluster=1.0, anchor=0.0)
    gradient = jax.grad(lambda params: method.tasks["cluster"].loss(params, *args[1:])[0])(args[0])["mu"]
    h, _, _, p = oracle(method, args)
    mu = np.asarray(args[0]["mu"], np.float64)
    for index in [(0, 0), (2, 5), (3, 15)]:
        step = np.zeros_like(mu)
        step[index] = 1e-5
        up, down = (kl(p[0], student_t_oracle(h[0], m, 1.0)) for m in (mu + step, mu - step))
        np.testing.assert_allclose(gradient[index], (up - down) / 2e-5, rtol=1e-3, atol=1e-6)


def test_weights_follow_their_schedule():
    knots = ((0, 20.0), (10, 0.0), (20, 2.0))
    for step, weight in ((0, 20.0), (5, 10.0), (15, 1.0), (99, 2.0)):
        method, args = setup(step, instance=knots, cluster=0.0, anchor=0.0)
        loss, out = method.tasks["cluster"].loss(*args)
        np.testing.assert_allclose(loss, weight * out.metrics["instance"], rtol=1e-6)


def test_plan_places_the_centres_once_at_init_epoch():
    method, _ = setup(init_epoch=2)
    plans = [method.plan(epoch) for epoch in range(4)]
    assert [p.task for (p,) in plans] == ["contrast", "contrast", "cluster", "cluster"]
    assert [p.refit for (p,) in plans] == [None, None, "centres", None]


@pytest.mark.parametrize(
    ("kind", "view", "batch", "train"),
    [("eval", "plain", 0, False), ("train", "strong", 0, True), ("batches", "plain", 32, True)],
)
def test_centres_start_from_the_features_that_a_setting_names(kind, view, batch, train):
    method, (params, stats, memory, seen, key) = setup(init_features=kind, views=("plain", "strong", "strong"))
    refit, x = method.refits["centres"], seen.views[0]
    assert (refit.view, refit.batch) == (view, batch)
    h = np.asarray(refit.embed(params, stats, memory, x, key))
    f = nets.ResNet(depth=18, stem="cifar", width=2)
    variables = {"params": params["f"], "batch_stats": stats}
    expected, _ = f.apply(variables, x, train=train, mutable=["batch_stats"])
    np.testing.assert_allclose(h, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("data", ["cifar10", "imagenet10", "imagenet_dogs", "tiny_imagenet"])
def test_the_papers_configs_train_as_long_and_start_as_released(data):
    cfg = config.load(ROOT / "configs" / f"{data}_anchor.py", {})
    assert (cfg.train.epochs, cfg.method.init_features, cfg.method.init_epoch) == (2000, "batches", 0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"views": ("plain", "strong")}, "method.views is ('plain', 'strong'); Anchor takes three: x0, x1, x2"),
        ({"anchor_loss": "q"}, "method.anchor_loss is 'q'; choose one of q0_q, p0_q, p_q, jsd"),
        ({"instance": ((5, 1.0), (0, 2.0))}, "rising steps"),
        ({"tau": 0.0}, "method.tau is 0.0; it must be above 0"),
        ({"tau": "hot"}, "method.tau is 'hot', which is not a number"),
    ],
)
def test_bad_settings_are_refused_with_a_sentence(settings, sentence):
    with pytest.raises(ConfigError, match="method") as e:
        setup(**settings)
    assert sentence in str(e.value)
