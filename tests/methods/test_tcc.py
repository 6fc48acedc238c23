"""TCC's losses against an oracle written from the paper's equations, its queues and twins, and its switches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, config_of
from helpers.oracles import dec_target_oracle, numerical_gradient

from jaxclust import nets
from jaxclust.methods import tcc
from jaxclust.run import config
from jaxclust.run.errors import ConfigError
from jaxclust.types import Batch, DataSpec

B, K, D, SIZE = 10, 3, 6, 8
PAPER = {
    "features": D,
    "assignment": "dot",
    "scale": 10.0,
    "alpha": 0.5,
    "tau": 1.0,
    "lam": 0.8,
    "samples": 1,
    "momentum": 0.9,
    "entropy": "sample",
    "sharpness": 0.3,
    "consistency": 0.0,
    "init_epoch": 0,
    "queue_clusters": 4,
    "queue_instances": 25,
    "augment_clusters": True,
    "aggregate": "soft",
}


def setup(**settings):
    """A small TCC whose twin differs from it: (method, arguments of a loss)."""
    small = {"clusters": K, "net.width": 2, "net.depth": 18, "net.stem": "cifar", "train.batch_size": B}
    cfg = config.load(config_of("tcc"), {name: str(value) for name, value in small.items()})
    with cfg.method.ignore_type():
        cfg.method.update(PAPER | settings)
    method = tcc.make(cfg)
    params, stats, memory = method.init(jax.random.key(0), DataSpec(100, SIZE, 1))
    params["mu"] = 3 * jax.random.normal(jax.random.key(5), (K, D))
    memory["twin"] = jax.tree.map(lambda p: 1.1 * p, params)
    (task, *_) = method.tasks.values()
    views = tuple(jax.random.uniform(jax.random.key(i), (B, SIZE, SIZE, 1)) for i in range(len(task.views)))
    return method, (params, stats, memory, Batch(jnp.arange(B), views, jnp.asarray(0)), jax.random.key(2))


def features(params, stats, x):
    f = nets.ResNet(depth=18, stem="cifar", width=2)
    h, _ = f.apply({"params": params["backbone"], "batch_stats": stats}, x, train=True, mutable=["batch_stats"])
    return np.asarray(nets.Linear(D).apply({"params": params["last"]}, h), np.float64)


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)  # an empty cluster's row stays 0


def gumbel(key, samples):
    """The noise of the network's and the twin's samples of c."""
    return [np.asarray(jax.random.gumbel(k, (samples, B, K)), np.float64) for k in jax.random.split(key)]


def l1_oracle(f, f_hat, pi, pi_hat, P, tau):
    """Eq. 4 and 5, a cluster at a time; P None is Table 3's (iv)."""
    r, r_hat = (np.zeros((K, D)) for _ in range(2))
    for k in range(K):
        r[k] = unit(sum(pi[i, k] * f[i] for i in range(len(f))))
        r_hat[k] = unit(sum(pi_hat[i, k] * f_hat[i] for i in range(len(f_hat))))
    loss = 0.0
    for k in range(K):
        positive = np.exp(r_hat[k] @ r[k] / tau)
        others = [r_hat[l] for l in range(K)] if P is None else P
        negative = sum(np.exp(p @ r[k] / tau) for l, p in enumerate(others) if l % K != k)
        loss -= np.log(positive / (positive + negative)) / K
    return loss, r_hat


def l2_oracle(f, f_hat, pi, pi_hat, Q, noise, noise_hat, nn, nn_hat, tau, lam, entropy):
    """Eq. 7 and 8, an image and a sample of c at a time, with the divergence of eq. 6."""
    loss, e_hats = 0.0, np.zeros_like(f)
    samples = len(noise)
    for i in range(len(f)):
        for s in range(samples):
            c = softmax((np.log(pi[i]) + noise[s, i]) / lam)
            c_hat = softmax((np.log(pi_hat[i]) + noise_hat[s, i]) / lam)
            e = unit(f[i] + c @ nn["kernel"] + nn["bias"])
            e_hat = unit(f_hat[i] + c_hat @ nn_hat["kernel"] + nn_hat["bias"])
            positive = np.exp(e_hat @ e / tau)
            p = positive / (positive + sum(np.exp(q @ e / tau) for q in Q))
            loss -= np.log(p) / samples / len(f)
            e_hats[i] += e_hat / samples
    return loss + np.log(K) - entropy(pi), e_hats


def own_entropy(pi):
    return -np.mean(np.sum(pi * np.log(pi), axis=1))


def mean_entropy(pi):
    return -np.sum(pi.mean(axis=0) * np.log(pi.mean(axis=0)))


ENTROPIES = {
    "sample": own_entropy,
    "marginal": mean_entropy,
    "mutual": lambda pi: mean_entropy(pi) - 0.3 * own_entropy(pi),
}


def inputs(args, assignment="dot"):
    """f, f_hat, pi, pi_hat in float64."""
    params, stats, memory, batch, _ = args
    fs = [features(params, stats, batch.views[0]), features(memory["twin"], memory["twin_stats"], batch.views[1])]
    mus = [np.asarray(p["mu"], np.float64) for p in (params, memory["twin"])]
    if assignment == "dot":
        return *fs, *(softmax(f @ mu.T) for f, mu in zip(fs, mus))
    return *fs, *(softmax(10.0 * unit(f) @ unit(mu).T) for f, mu in zip(fs, mus))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tau": 0.2, "lam": 1.5, "entropy": "marginal"},
        {"entropy": "mutual", "assignment": "cosine"},
        {"samples": 3},
        {"queue_clusters": 0},
        {"alpha": 0.25, "consistency": 0.7},
    ],
    ids=str,
)
def test_loss_equals_the_oracle(change):
    method, args = setup(**change)
    s = PAPER | change
    loss, out = method.tasks["both"].loss(*args)
    params, _, memory, _, key = args
    f, f_hat, pi, pi_hat = inputs(args, s["assignment"])
    P = np.asarray(memory["P"], np.float64) if "P" in memory else None
    l1, r_hat = l1_oracle(f, f_hat, pi, pi_hat, P, s["tau"])
    nn, nn_hat = (jax.tree.map(lambda a: np.asarray(a, np.float64), p["nn"]) for p in (params, memory["twin"]))
    noise = gumbel(key, s["samples"])
    Q = np.asarray(memory["Q"], np.float64)
    l2, e_hat = l2_oracle(f, f_hat, pi, pi_hat, Q, *noise, nn, nn_hat, s["tau"], s["lam"], ENTROPIES[s["entropy"]])
    agreement = -np.mean(np.sum(pi_hat * np.log(pi), axis=1))
    np.testing.assert_allclose(out.metrics["l1"], l1, rtol=1e-5)
    np.testing.assert_allclose(out.metrics["l2"], l2, rtol=1e-5)
    expected = s["alpha"] * l1 + (1 - s["alpha"]) * l2 + s["consistency"] * agreement
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(out.carry["r_hat"], r_hat, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(out.carry["e_hat"], e_hat, rtol=1e-4, atol=1e-6)
    p = dec_target_oracle(pi)
    np.testing.assert_allclose(out.metrics["dec"], np.mean(np.sum(p * np.log(p / pi), axis=1)), rtol=1e-4)


@pytest.mark.parametrize(("alpha", "part"), [(1.0, "mu"), (0.0, "mu"), (0.0, "nn")])
def test_gradients_equal_the_oracles(alpha, part):
    """With respect to the prototypes, through both losses, and to NN's bias."""
    method, args = setup(alpha=alpha)
    params, _, memory, _, key = args
    gradient = jax.grad(lambda params: method.tasks["both"].loss(params, *args[1:])[0])(params)
    f, f_hat, _, pi_hat = inputs(args)
    nn, nn_hat = (jax.tree.map(lambda a: np.asarray(a, np.float64), p["nn"]) for p in (params, memory["twin"]))
    P, Q = (np.asarray(memory[name], np.float64) for name in "PQ")
    noise = gumbel(key, 1)

    def loss(mu, bias):
        pi = softmax(f @ mu.T)
        if alpha == 1:
            return l1_oracle(f, f_hat, pi, pi_hat, P, 1.0)[0]
        moved = nn | {"bias": bias}
        return l2_oracle(f, f_hat, pi, pi_hat, Q, *noise, moved, nn_hat, 1.0, 0.8, own_entropy)[0]

    mu = np.asarray(params["mu"], np.float64)
    if part == "mu":
        ours, expected = gradient["mu"], numerical_gradient(lambda m: loss(m, nn["bias"]), mu)
    else:
        ours, expected = gradient["nn"]["bias"], numerical_gradient(lambda b: loss(mu, b), nn["bias"])
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


def test_order_of_the_batch_does_not_change_the_clusters():
    method, args = setup()
    params, stats, memory, batch, key = args
    order = np.random.default_rng(0).permutation(B)
    shuffled = batch._replace(views=tuple(x[order] for x in batch.views))
    a, b = (method.tasks["both"].loss(params, stats, memory, seen, key)[1] for seen in (batch, shuffled))
    np.testing.assert_allclose(a.carry["r_hat"], b.carry["r_hat"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(a.metrics["l1"], b.metrics["l1"], rtol=1e-5)


def test_queues_hold_the_last_rows_in_order():
    """After many commits: row l of P is of cluster l mod K, and both queues hold the newest rows."""
    method, (params, _, memory, _, _) = setup()
    rng = np.random.default_rng(0)
    rows_p, rows_q = [], []
    for _ in range(9):
        carry = {
            "twin_stats": memory["twin_stats"],
            "r_hat": rng.normal(size=(K, D)).astype(np.float32),
            "e_hat": rng.normal(size=(B, D)).astype(np.float32),
        }
        memory = method.tasks["both"].commit(params, memory, jnp.arange(B), carry)
        rows_p.append(carry["r_hat"])
        rows_q.append(carry["e_hat"])
    for name, rows in (("P", np.concatenate(rows_p)), ("Q", np.concatenate(rows_q))):
        size, start = len(memory[name]), int(memory[f"{name}_next"])
        np.testing.assert_array_equal(np.roll(memory[name], -start, axis=0), rows[-size:])
    clusters = np.tile(np.arange(K), 4)
    for l, k in enumerate(clusters):
        assert any(np.array_equal(memory["P"][l], r[k]) for r in rows_p[-4:])


@pytest.mark.slow
def test_twins_are_the_moving_average_and_nothing_else():
    method, (params, stats, memory, batch, key) = setup(momentum=0.9)
    _, out = method.tasks["both"].loss(params, stats, memory, batch, key)
    after = method.tasks["both"].commit(params, memory, batch.ids, out.carry)
    for twin, hat, p in zip(*map(jax.tree.leaves, (after["twin"], memory["twin"], params)), strict=True):
        np.testing.assert_allclose(twin, 0.9 * hat + 0.1 * p, rtol=1e-5, atol=1e-7)
    assert jax.tree.structure(after["twin"]) == jax.tree.structure(params)


@pytest.mark.parametrize(
    "change", [{"augment_clusters": False}, {"aggregate": "hard"}, {"samples": 10}, {"queue_clusters": 0}], ids=str
)
def test_baselines_of_table_3_step(change):
    method, args = setup(**change)
    task = method.tasks["both"]
    assert len(task.views) == (3 if change.get("augment_clusters") is False else 2)
    loss, out = task.loss(*args)
    assert np.isfinite(loss)
    memory = task.commit(args[0], args[2], args[3].ids, out.carry)
    if change.get("queue_clusters") == 0:  # an empty array could not be saved
        assert "P" not in memory
    else:
        assert int(memory["P_next"]) == K


def test_without_image_augmentation_the_clusters_come_from_the_plain_view():
    method, args = setup(augment_clusters=False)
    params, stats, memory, batch, _ = args
    _, out = method.tasks["both"].loss(*args)
    x = batch.views[2]
    f, f_hat = features(params, stats, x), features(memory["twin"], memory["twin_stats"], x)
    pi, pi_hat = (softmax(v @ np.asarray(p["mu"]).T) for v, p in ((f, params), (f_hat, memory["twin"])))
    expected, _ = l1_oracle(f, f_hat, pi, pi_hat, np.asarray(memory["P"], np.float64), 1.0)
    np.testing.assert_allclose(out.metrics["l1"], expected, rtol=1e-5)


def test_hard_assignment_sums_the_images_of_a_cluster_alone():
    method, args = setup(aggregate="hard")
    _, out = method.tasks["both"].loss(*args)
    f, f_hat, pi, pi_hat = inputs(args)
    one_hot = np.eye(K)
    pi, pi_hat = one_hot[pi.argmax(axis=1)], one_hot[pi_hat.argmax(axis=1)]
    expected, _ = l1_oracle(f, f_hat, pi, pi_hat, np.asarray(args[2]["P"], np.float64), 1.0)
    np.testing.assert_allclose(out.metrics["l1"], expected, rtol=1e-5)


@pytest.mark.slow
def test_whole_set_aggregation_takes_turns():
    """The value of L1 is the sweep's; its gradient is not zero; P is fed by the sweep alone."""
    method, (params, stats, memory, batch, key) = setup(aggregate="whole")
    assert [(p.task, p.refit) for p in method.plan(0)] == [("instances", None), ("clusters", "aggregate")]
    refit = method.refits["aggregate"]
    both = refit.embed(params, stats, memory, batch.views[0], key)
    *_, memory = refit.update(params, stats, memory, both, key)
    f, f_hat = np.split(np.asarray(both, np.float64), 2, axis=1)
    pi, pi_hat = (softmax(v @ np.asarray(p["mu"]).T) for v, p in ((f, params), (f_hat, memory["twin"])))
    expected, r_hat = l1_oracle(f, f_hat, pi, pi_hat, np.asarray(memory["P"], np.float64), 1.0)
    np.testing.assert_allclose(memory["P"][:K], r_hat, rtol=1e-4, atol=1e-6)
    task = method.tasks["clusters"]
    value = lambda params: task.loss(params, stats, memory, batch, key)  # noqa: E731
    (_, out), gradient = jax.value_and_grad(value, has_aux=True)(params)
    np.testing.assert_allclose(out.metrics["l1"], expected, rtol=1e-5)
    assert np.any(gradient["mu"])
    after = task.commit(params, memory, batch.ids, out.carry)
    assert int(after["P_next"]) == K
    assert int(after["Q_next"]) == 0


def test_placed_prototypes_are_the_centres_of_the_directions():
    for assignment in ("dot", "cosine"):
        method, (params, _, memory, _, key) = setup(init_epoch=2, assignment=assignment)
        assert [method.plan(e)[0].refit for e in (0, 1, 2, 3)] == [None, None, "prototypes", None]
        rng = np.random.default_rng(0)
        truth = rng.permutation(np.repeat(np.arange(K), 20))
        f = (np.eye(D)[truth] + 0.05 * rng.normal(size=(60, D))) * rng.uniform(1, 3, (60, 1))
        params, _, memory = method.refits["prototypes"].update(params, {}, memory, f.astype(np.float32), key)
        found = np.argmax(unit(f) @ np.asarray(params["mu"]).T, axis=1)
        assert len(set(zip(truth, found))) == K
        np.testing.assert_array_equal(memory["twin"]["mu"], params["mu"])


def test_a_cluster_without_images_is_a_dead_row():
    queue = np.eye(4, 6, dtype=np.float32)
    queue[2] = 0
    assert tcc.dead_rows(queue) == 1
    queue[3] = np.nan
    assert tcc.dead_rows(queue) == 2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"views": ("strong", "strong")}, "method.views is ('strong', 'strong'); TCC takes three"),
        ({"entropy": "none"}, "method.entropy is 'none'; choose one of sample, marginal, mutual"),
        ({"alpha": 1.5}, "method.alpha is 1.5; it must be at least 0 and at most 1"),
        ({"tau": 0.0}, "method.tau is 0.0; it must be above 0"),
        ({"queue_instances": 5}, "train.batch_size is 10, more than the 5 rows of method.queue_instances"),
    ],
)
def test_bad_settings_are_refused_with_a_sentence(settings, sentence):
    with pytest.raises(ConfigError) as e:
        setup(**settings)
    assert sentence in str(e.value)


def test_stl10_is_standardised_by_its_own_statistics():
    views = config.load(ROOT / "configs" / "stl10_tcc.py", {}).views
    for view in (views.plain, views.strong):
        assert (view.mean, view.std) == ((0.4409, 0.4279, 0.3868), (0.2683, 0.2610, 0.2687))
