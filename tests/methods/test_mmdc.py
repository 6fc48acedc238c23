"""MMDC's losses and gradients against NumPy, how targets are shared out and refined, and the paper's other rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import config_of
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from jaxclust import nets
from jaxclust.methods import mmdc
from jaxclust.run import config
from jaxclust.run.errors import ConfigError
from jaxclust.types import Batch, DataSpec, Pass

N, B, K, GROUP, SIZE = 40, 24, 4, 12, 16
SMALL = {
    "clusters": str(K),
    "net.width": "2",
    "train.batch_size": str(B),
    "train.epochs": "10",
    "method.group": str(GROUP),
    "method.refine_epoch": "10",
}
NAT = {"means": "none", "dim": 6}
ROTATION = {"rotation": True, "rotation_view": "strong"}
ROTNET = ROTATION | {"assignment": False}


def build(small=SMALL, **settings):
    cfg = config.load(config_of("mmdc"), small)
    with cfg.method.ignore_type():
        cfg.method.update(settings)
    return mmdc.make(cfg)


def jit(f):
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})  # these tests mostly compile


def setup(task, channels=1, **settings):
    """A small MMDC: (method, arguments of a loss)."""
    method = build(**settings)
    params, stats, memory = jit(lambda key: method.init(key, DataSpec(N, SIZE, channels)))(jax.random.key(0))
    n = len(method.tasks[task].views)
    views = tuple(jax.random.uniform(jax.random.key(i), (B, SIZE, SIZE, channels)) for i in range(n))
    ids = jax.random.permutation(jax.random.key(9), N)[:B]
    return method, (params, stats, memory, Batch(ids, views, jnp.zeros((), jnp.int32)), jax.random.key(2))


def features(params, stats, x, train):
    variables = {"params": params["f"], "batch_stats": stats}
    apply = jit(lambda variables, x: nets.VGG(width=2).apply(variables, x, train=train, mutable=["batch_stats"])[0])
    return np.asarray(apply(variables, x), np.float64)


def linear(head, h):
    return h @ np.asarray(head["kernel"], np.float64) + np.asarray(head["bias"], np.float64)


def unit(u):
    return u / np.linalg.norm(u, axis=1, keepdims=True)


def shared_out(z, t):
    """Eq. 1 over P: the least total distance that each group can have."""
    groups = [(slice(i, i + GROUP), cdist(z[i : i + GROUP], t[i : i + GROUP])) for i in range(0, len(z), GROUP)]
    return {rows.start: cost[linear_sum_assignment(cost)].sum() for rows, cost in groups}


@pytest.mark.parametrize(
    "settings", [{}, {"means": "random", "dim": 7}, {"means": "random", "dim": 3, "sigma": 0.05}, {"sigma": 0.2}, NAT]
)
def test_targets_are_permuted_in_each_group_at_the_least_distance(settings):
    method, args = setup("assignment", **settings)
    params, stats, memory, batch, _ = args
    _, out = jit(method.tasks["assignment"].loss)(*args)
    t, y = np.asarray(memory["targets"])[batch.ids], np.asarray(out.carry)
    z = unit(linear(params["output"], features(params, stats, batch.views[0], False)))
    for start, least in shared_out(z, t).items():
        rows = slice(start, start + GROUP)
        np.testing.assert_array_equal(np.sort(y[rows], axis=0), np.sort(t[rows], axis=0))
        np.testing.assert_allclose(np.linalg.norm(z[rows] - y[rows], axis=1).sum(), least, rtol=1e-5)
    np.testing.assert_allclose(out.metrics["moved"], (y != t).any(axis=1).mean())


@pytest.mark.parametrize("task", ["assignment", "refine"])
def test_assignment_loss_and_its_gradient_equal_the_oracle(task):
    method, args = setup(task, refine_epoch=5)
    params, stats, memory, batch, _ = args
    (loss, out), gradient = jit(jax.value_and_grad(method.tasks[task].loss, has_aux=True))(*args)
    y = np.asarray(out.carry if task == "assignment" else memory["targets"][batch.ids], np.float64)
    h = features(params, stats, batch.views[-1], True)
    u = linear(params["output"], h)
    z = unit(u)
    np.testing.assert_allclose(loss, np.mean((z - y) ** 2), rtol=1e-5)
    dz = 2 * (z - y) / z.size
    du = (dz - z * (z * dz).sum(1, keepdims=True)) / np.linalg.norm(u, axis=1, keepdims=True)
    close(gradient["output"]["kernel"], h.T @ du)
    close(gradient["output"]["bias"], du.sum(0))


def test_rotation_loss_and_its_gradient_equal_the_oracle():
    method, args = setup("rotation", **ROTATION)
    params, stats, _, batch, _ = args
    (loss, out), gradient = jit(jax.value_and_grad(method.tasks["rotation"].loss, has_aux=True))(*args)
    turned = np.concatenate([np.rot90(x, v, axes=(1, 2)) for v, x in enumerate(batch.views)])  # turn by turn
    h = features(params, stats, turned, True)
    logits = linear(params["rotation"], h)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    answers = np.repeat(np.eye(4), B, axis=0)
    np.testing.assert_allclose(loss, -np.log((p * answers).sum(1)).mean(), rtol=1e-5)
    np.testing.assert_allclose(out.metrics["rotation_accuracy"], (p.argmax(1) == answers.argmax(1)).mean())
    close(gradient["rotation"]["kernel"], h.T @ (p - answers) / len(p))


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5 * np.abs(want).max())


def test_nothing_flows_through_the_assignment():
    method, (params, stats, memory, batch, key) = setup("assignment")

    def loss_at(centre):
        seen = batch._replace(views=(centre, batch.views[1]))
        return method.tasks["assignment"].loss(params, stats, memory, seen, key)[0]

    assert not np.asarray(jit(jax.grad(loss_at))(batch.views[0])).any()


def test_targets_keep_their_multiset_over_steps_and_others_stay():
    method, (params, stats, memory, batch, key) = setup("assignment", means="random", sigma=0.1)
    before = np.asarray(memory["targets"])
    task = method.tasks["assignment"]
    step = jit(lambda memory, batch: task.commit(params, memory, batch.ids, loss(memory, batch).carry))
    loss = lambda memory, batch: task.loss(params, stats, memory, batch, key)[1]  # noqa: E731
    for i in range(3):
        ids = jax.random.permutation(jax.random.key(i), N)[:B]
        last, memory = np.asarray(memory["targets"]), step(memory, batch._replace(ids=ids))
        rest = np.setdiff1d(np.arange(N), ids)
        np.testing.assert_array_equal(np.asarray(memory["targets"])[rest], last[rest])
    after = np.asarray(memory["targets"])
    assert (after != before).any()
    np.testing.assert_array_equal(after[np.lexsort(after.T)], before[np.lexsort(before.T)])


def test_targets_are_drawn_from_the_mixture():
    def targets(**settings):
        method = build(SMALL | {"seed": "3"}, **settings)
        return np.asarray(jit(lambda key: method.init(key, DataSpec(4000, SIZE, 1))[2])(jax.random.key(0))["targets"])

    one_hot = targets()
    np.testing.assert_allclose(np.unique(one_hot, axis=0), np.eye(K)[::-1])
    np.testing.assert_allclose(one_hot.mean(0), 1 / K, atol=0.03)
    means = targets(means="random", dim=30)
    assert np.unique(means, axis=0).shape == (K, 30)
    np.testing.assert_allclose(np.linalg.norm(means, axis=1), 1, rtol=1e-6)
    wide = targets(means="random", dim=30, sigma=0.01)  # sigma is a variance: |u - mu|^2 is 30 x 0.01 in the mean
    cosine = (wide @ np.unique(means, axis=0).T).max(1)
    np.testing.assert_allclose(cosine.mean(), 1 / np.sqrt(1.3), atol=0.01)
    sphere = targets(means="none", dim=3)
    np.testing.assert_allclose(sphere.mean(0), 0, atol=0.04)
    np.testing.assert_allclose((sphere**2).mean(0), 1 / 3, atol=0.02)


def test_prediction_is_the_nearest_mean():
    method, (params, stats, _, batch, _) = setup("assignment", means="random", dim=7)
    q, embeddings = jit(method.predict)(params, stats, {}, batch.views[0])
    h = features(params, stats, batch.views[0], False)
    np.testing.assert_allclose(embeddings["backbone"], h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(embeddings["output"], unit(linear(params["output"], h)), rtol=1e-4, atol=1e-5)
    mu = mmdc.means("random", K, 7, 0)
    np.testing.assert_array_equal(np.argmax(q, axis=1), cdist(embeddings["output"], mu).argmin(1))
    np.testing.assert_allclose(np.sum(q, axis=1), 1, rtol=1e-5)


def test_refinement_clusters_the_outputs_and_keeps_the_numbers_of_the_targets():
    method = build(refine_epoch=5)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(K), 10)
    targets = np.eye(K, dtype=np.float32)[np.where(rng.random(N) < 0.3, rng.integers(0, K, N), labels)]
    # Outputs gather in four places, none of which is a mean, and no two clusters are nearest to different ones.
    z = unit(np.ones((N, K)) + np.eye(K)[::-1][labels] + 0.01 * rng.normal(size=(N, K)))
    *_, memory = method.refits["targets"].update(
        {}, {}, {"targets": jnp.asarray(targets)}, jnp.asarray(z), jax.random.key(0)
    )
    np.testing.assert_array_equal(memory["targets"], np.eye(K)[labels])


def test_plan_turns_to_refinement_at_its_epoch_and_rotation_comes_first():
    method = build(refine_epoch=5, **ROTATION)
    assert method.plan(4) == (Pass("rotation"), Pass("assignment"))
    assert method.plan(5) == method.plan(9) == (Pass("rotation"), Pass("refine", refit="targets"))
    assert build().plan(9) == (Pass("assignment"),)
    assert build(**ROTNET).plan(0) == (Pass("rotation"),)
    assert not build(refine_epoch=10).refits


@pytest.mark.parametrize(
    ("settings", "tasks", "embeddings"),
    [
        (NAT, ["assignment"], ["backbone", "output"]),
        (ROTNET, ["rotation"], ["backbone"]),
        (NAT | ROTATION, ["rotation", "assignment"], ["backbone", "output"]),
    ],
)
def test_the_rows_without_clusters_step_and_predict(settings, tasks, embeddings):
    assert list(build(**settings).tasks) == tasks
    for task in tasks:
        method, args = setup(task, **settings)
        loss, out = jit(method.tasks[task].loss)(*args)
        assert np.isfinite(loss)
        assert "sizes" not in out.metrics
    prediction = jit(method.predict)(args[0], args[1], {}, args[3].views[0])
    assert prediction.q is None
    assert list(prediction.embeddings) == embeddings
    assert method.reported == {"k-means on penultimate features": "kmeans_backbone"}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("released", [False, True])
def test_sobel_filters_the_grey_image(channels, released):
    x = np.random.default_rng(0).random((2, 6, 5, channels))
    weights = (1 / 3, 1 / 3, 1 / 3) if released else (0.299, 0.587, 0.114)
    grey = x @ weights if channels == 3 else x[..., 0]
    kernel = np.outer((1, 2, 1), (1, 0, -1) if released else (-1, 0, 1))
    g = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="constant" if released else "edge")
    want = np.zeros((2, 6, 5, 2))
    for i in range(6):
        for j in range(5):
            window = g[:, i : i + 3, j : j + 3]
            want[:, i, j] = np.stack([(window * kernel).sum((1, 2)), (window * kernel.T).sum((1, 2))], axis=-1)
    np.testing.assert_allclose(mmdc.sobel(jnp.asarray(x, jnp.float32), released), want, atol=1e-5)
    method, args = setup("assignment", channels, sobel="released" if released else True)
    assert args[0]["f"]["block1"]["conv"]["kernel"].shape == (3, 3, 2, 2)
    assert np.isfinite(jit(method.tasks["assignment"].loss)(*args)[0])


@pytest.mark.parametrize(("said", "means"), [("released", "released"), ("True", True), ("false", False)])
def test_the_filter_is_named_on_the_command_line(said, means):
    assert config.load(config_of("mmdc"), {"method.sobel": said}).method.sobel == means


def test_linear_layers_start_small():
    method = build(SMALL | {"net.width": "16"}, **ROTATION)
    params = jit(lambda key: method.init(key, DataSpec(N, SIZE, 1))[0])(jax.random.key(0))
    for name in ("output", "rotation"):
        np.testing.assert_allclose(params[name]["kernel"].std(), 0.01, rtol=0.1)
        assert not params[name]["bias"].any()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"views": ("centre",)}, "method.views is ('centre',); MMDC takes two"),
        ({"means": "two_hot"}, "method.means is 'two_hot'; choose one of one_hot, random, none"),
        ({"assignment": False}, "method.assignment and method.rotation are both False"),
        ({"sobel": "edges"}, "method.sobel is 'edges'; choose one of False, True, released"),
        ({"group": 0}, "method.group is 0; it must be at least 1"),
        ({"group": 9}, "method.group is 9, which does not divide train.batch_size / train.accumulate, 24"),
        ({"dim": 5}, "method.dim is 5; one-hot means have 4 entries"),
        ({"sigma": -1.0}, "method.sigma is -1.0; it must be at least 0"),
        ({"refine_epoch": -1}, "method.refine_epoch is -1; it must be at least 0"),
        (NAT | {"refine_epoch": 5}, "method.refine_epoch is 5, but without means there are no clusters to refine"),
    ],
)
def test_bad_settings_are_refused_with_a_sentence(settings, sentence):
    with pytest.raises(ConfigError) as e:
        build(**settings)
    assert sentence in str(e.value)
