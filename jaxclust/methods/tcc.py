"""You Never Cluster Alone (Shen et al., NeurIPS 2021, arXiv:2106.01908): "TCC", twin-contrast clustering.

A cluster is represented by the sum of its images' features, weighted by how much they belong to it, and contrasted
with other clusters (L1), as an image is with other images (L2). The negatives wait in two queues, the positives come
from momentum twins (hats) of every trainable part. In the paper's order, with two augmented views of each image, one
for the network and one for its twin:

    eq. 3   pi     pi_i(k) = softmax_k(mu_k . f(x_i))
    eq. 4   r      r_k = normalise(sum_i pi_i(k) f(x_i)), over the batch
    eq. 5   L1     contrast of r_k with r_hat_k, against the rows of the queue P that stand for other clusters
            c      c_i = softmax((log pi_i + Gumbel noise) / lambda): a sample of the cluster that can be differentiated
    eq. 7   e      e_i = normalise(f(x_i) + NN(c_i)), contrasted with e_hat_i against all rows of the queue Q
    eq. 8   L2     that contrast, and KL(pi_i || uniform)
    eq. 9   L      alpha L1 + (1 - alpha) L2

The twins' parameters move by theta_hat <- 0.999 theta_hat + 0.001 theta after each step. P holds r_hat of the last
steps in cluster order, so that a row's index mod K is its cluster; Q holds e_hat of the last images.

Deviations:
  * Eq. 8 prints -H - log K where eq. 6 gives -H + log K, the KL divergence; a constant.
  * `entropy` "sample" is the paper's: the bonus is each image's own entropy, and assignments stay soft. "marginal"
    takes the entropy of the batch's mean assignment, and "mutual" that minus `sharpness` times the images' own.
  * `assignment` "cosine" makes eq. 3 scale * cos(mu_k, f(x_i)): the direction is all that e and r keep of f.
  * `init_epoch`: the paper trains everything from the first step, which is 0. A later epoch begins by placing mu at
    the k-means centres of the directions of f on plain images; until then L2 as printed is trained alone.
  * `consistency`: weight of the cross-entropy between the twin's assignment of its view and the network's of the other,
    0 in the paper.
  * `aggregate` "whole" (Table 3, vii) takes turns: an epoch of L2, then one of L1 with r over the whole training set. A
    set does not fit into a step: r has the value of a sweep before the epoch, and the gradient of the batch. The sweep
    shows one augmented view to both networks.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxclust import nets
from jaxclust.ops import assignment
from jaxclust.ops.losses import HIGHEST, dec_target, kl, normalise
from jaxclust.run.errors import ConfigError
from jaxclust.run.schema import Check, option, settings
from jaxclust.types import Batch, Method, Out, Pass, Prediction, Published, Refit, Task

PUBLISHED = tuple(  # printed in per cent; Table 4 is the appendix's
    Published(f"TCC, Table {table}", data, clusters, "arg max of pi", *scores)
    for table, data, clusters, *scores in (
        (2, "cifar10", 10, 0.790, 0.906, 0.733),
        (2, "cifar100", 20, 0.479, 0.491, 0.312),  # the 20 superclasses
        (2, "stl10", 10, 0.732, 0.814, 0.689),
        (2, "imagenet10", 10, 0.848, 0.897, 0.825),
        (2, "imagenet_dogs", 15, 0.554, 0.595, 0.417),
        (4, "tiny_imagenet", 200, 0.435, 0.306, 0.152),
    )
)


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str
    # policies of the plain view, the network's and the twin's
    views: tuple = option(check=Check(lambda v: len(v) == 3, "TCC takes three: plain, network's, twin's"))
    features: int = option(at_least=1)  # width of f
    assignment: str = option(choices=("dot", "cosine"))  # "dot" is the paper's
    scale: float = option(above=0)  # of the cosine, and of the logits where k-means places mu
    alpha: float = option(at_least=0, at_most=1)  # weight of L1; 1 - alpha is L2's (Table 3, i and ii; Figure 4a)
    tau: float = option(above=0)  # temperature of both contrasts
    lam: float = option(above=0)  # lambda, temperature of the Gumbel-softmax (Figure 4b)
    samples: int = option(at_least=1)  # of c for each image (Table 3, iii)
    momentum: float = option(at_least=0, at_most=1)  # of the twins
    entropy: str = option(choices=("sample", "marginal", "mutual"))  # "sample" is the paper's
    sharpness: float = option(at_least=0)  # weight of the images' own entropy in "mutual"
    consistency: float = option(at_least=0)  # weight of the agreement with the twin's assignment; 0 in the paper
    init_epoch: int = option(at_least=0)  # k-means places mu at the start of this epoch; 0 is never
    # L / K, steps that P remembers (Figure 4c); 0 does without P (Table 3, iv).
    queue_clusters: int = option(at_least=0)
    queue_instances: int = option(at_least=1)  # J, rows of Q
    augment_clusters: bool  # whether L1 sees augmented views (Table 3, v)
    aggregate: str = option(choices=("soft", "hard", "whole"))  # paper; Table 3, vi; Table 3, vii


def log_pi(f, mu, scale: float | None = None):
    """Eq. 3, log pi f32[B, K] of features f32[B, D] and prototypes mu f32[K, D].

    With a `scale` the logits are scale * cos(mu_k, f) instead of mu_k . f.
    """
    if scale is not None:
        f, mu = normalise(f), scale * normalise(mu)
    return jax.nn.log_softmax(jnp.matmul(f, mu.T, precision=HIGHEST))


def total(f, log_p, hard: bool = False):
    """Eq. 4 before it is normalised, f32[K, D]: features f32[B, D], weighted by log pi f32[B, K] or its arg max."""
    weight = jax.nn.one_hot(jnp.argmax(log_p, axis=-1), log_p.shape[-1]) if hard else jnp.exp(log_p)
    return jnp.matmul(weight.T, f, precision=HIGHEST)


def gumbel_softmax(key, log_p, lam: float, samples: int):
    """c f32[S, B, K], samples of the cluster that can be differentiated, of log pi f32[B, K]."""
    noise = jax.random.gumbel(key, (samples, *log_p.shape))
    return jax.nn.softmax((log_p + noise) / lam)


def l1(r, r_hat, candidates, tau: float):
    """Eq. 5, f32[], of r and r_hat f32[K, D]; the candidates f32[L, D] are the rows of P, by cluster in turn."""
    K = len(r)
    own = jnp.arange(len(candidates)) % K == jnp.arange(K)[:, None]  # bool[K, L]
    return jnp.mean(info_nce(r, r_hat, candidates, tau, own))


def l2(e, e_hat, log_p, Q, tau: float, bonus: str = "sample", sharpness: float = 1.0):
    """Eq. 8, f32[], of e and e_hat f32[S, B, D], log pi f32[B, K] and the queue Q f32[J, D]."""
    own = jnp.mean(entropy(log_p))
    mean = entropy(jax.nn.logsumexp(log_p, axis=0) - jnp.log(len(log_p)))
    bonus = {"sample": own, "marginal": mean, "mutual": mean - sharpness * own}[bonus]
    return jnp.mean(info_nce(e, e_hat, Q, tau)) + jnp.log(log_p.shape[-1]) - bonus


def make(config: Mapping[str, Any]) -> Method:
    s: Settings = settings(Settings, config["method"], "method")
    backbone = nets.backbone(settings(nets.Settings, config["net"], "net"))
    K, hard, parts = config["clusters"], s.aggregate == "hard", config["train"]["accumulate"]
    last, nn = nets.Linear(s.features), nets.Linear(s.features)
    if config["train"]["batch_size"] > s.queue_instances:
        raise ConfigError(
            f"train.batch_size is {config['train']['batch_size']}, more than the {s.queue_instances} rows of "
            f"method.queue_instances"
        )

    def init(key, spec):
        keys = jax.random.split(key, 6)
        trunk, stats = nets.start(backbone, keys[0], spec.size, spec.channels)
        params = {
            "backbone": trunk,
            "last": last.init(keys[1], jnp.zeros((1, backbone.features)))["params"],
            "mu": jax.random.normal(keys[2], (K, s.features)) / s.features**0.5,
            "nn": nn.init(keys[3], jnp.zeros((1, K)))["params"],
        }
        memory = {"twin": params, "twin_stats": stats}
        for name, key_q, rows in (("P", keys[4], s.queue_clusters * K), ("Q", keys[5], s.queue_instances)):
            if rows:
                memory[name] = normalise(jax.random.normal(key_q, (rows, s.features)))
                memory[f"{name}_next"] = jnp.zeros((), jnp.int32)  # the row that is written next
        if s.aggregate == "whole":
            memory |= {name: jnp.zeros((K, s.features)) for name in ("sum", "sum_hat")}
        # Twins of their own: a buffer that is donated twice would be an error.
        return params, stats, jax.tree.map(jnp.copy, memory)

    def embed(params, stats, x, train=True):
        """f32[B, H, W, C] -> h f32[B, D], f(x) f32[B, 128], and the new running statistics."""
        h, stats = nets.embed(backbone, params["backbone"], stats, x, train, parts if train else 1)
        return h, last.apply({"params": params["last"]}, h), stats

    def assign(params, f):
        return log_pi(f, params["mu"], s.scale if s.assignment == "cosine" else None)

    def e(params, f, log_p, key):
        """Eq. 7, f32[S, B, 128]."""
        c = gumbel_softmax(key, log_p, s.lam, s.samples)
        return normalise(f + nn.apply({"params": params["nn"]}, c))

    def step(params, stats, memory, batch: Batch, key, cluster=True, instance=True, bonus=s.entropy):
        """Eq. 9, or one of its losses alone."""
        x, x_hat, *plain = batch.views
        twin = memory["twin"]
        _, f, stats = embed(params, stats, x)
        _, f_hat, twin_stats = embed(twin, memory["twin_stats"], x_hat)  # constant: only `params` are differentiated
        log_p, log_p_hat = assign(params, f), assign(twin, f_hat)
        carry, terms = {"twin_stats": twin_stats}, {}

        if cluster:
            if plain:
                _, f0, stats = embed(params, stats, *plain)
                _, f0_hat, carry["twin_stats"] = embed(twin, twin_stats, *plain)
                R, R_hat = total(f0, assign(params, f0), hard), total(f0_hat, assign(twin, f0_hat), hard)
            else:
                R, R_hat = total(f, log_p, hard), total(f_hat, log_p_hat, hard)
            if s.aggregate == "whole":
                R, R_hat = memory["sum"] + R - jax.lax.stop_gradient(R), memory["sum_hat"]
            r, r_hat = normalise(R), normalise(R_hat)
            terms["l1"] = l1(r, r_hat, memory.get("P", r_hat), s.tau)
            carry["r_hat"] = r_hat
        if instance:
            key, key_hat = jax.random.split(key)
            e_i, e_hat = e(params, f, log_p, key), e(twin, f_hat, log_p_hat, key_hat)
            terms["l2"] = l2(e_i, e_hat, log_p, memory["Q"], s.tau, bonus, s.sharpness)
            carry["e_hat"] = jnp.mean(e_hat, axis=0)
        if s.consistency and cluster:
            terms["consistency"] = -jnp.mean(jnp.sum(jnp.exp(log_p_hat) * log_p, axis=-1))

        weights = {"l1": s.alpha, "l2": 1 - s.alpha, "consistency": s.consistency}
        loss = sum(weights[name] * term for name, term in terms.items())
        pi = jnp.exp(log_p)
        metrics = {
            **terms,
            "loss": loss,
            "dec": jnp.mean(kl(dec_target(pi), log_p)),  # Figure 5c: watched, not trained
            "entropy": jnp.mean(entropy(log_p)),
            "confidence": jnp.mean(jnp.max(pi, axis=-1)),
            "dead_rows": sum(dead_rows(memory[name]) for name in ("P", "Q") if name in memory),
            "sizes": jnp.bincount(jnp.argmax(log_p, axis=-1), length=K).astype(jnp.float32),  # Figure 6
        }
        return loss, Out(stats, carry, metrics)

    def commit(params, memory, ids, carry):
        """The moving average, and the queues."""
        memory = memory | {
            "twin": jax.tree.map(lambda hat, p: s.momentum * hat + (1 - s.momentum) * p, memory["twin"], params),
            "twin_stats": carry["twin_stats"],
        }
        if "r_hat" in carry and s.aggregate != "whole":
            memory = enqueue(memory, "P", carry["r_hat"])
        if "e_hat" in carry:
            memory = enqueue(memory, "Q", carry["e_hat"])
        return memory

    def place(params, stats, memory, f, key):
        """mu at the k-means centres of the directions of f."""
        mu = normalise(assignment.kmeans(key, normalise(f), K).centres)
        if s.assignment == "dot":
            mu *= s.scale / jnp.mean(jnp.linalg.norm(f, axis=-1))
        return params | {"mu": mu}, stats, memory | {"twin": memory["twin"] | {"mu": mu}}

    def show(params, stats, memory, x, key):
        return embed(params, stats, x, train=False)[1]

    def show_both(params, stats, memory, x, key):
        f_hat = embed(memory["twin"], memory["twin_stats"], x, train=False)[1]
        return jnp.concatenate([show(params, stats, memory, x, key), f_hat], axis=-1)

    def aggregate(params, stats, memory, both, key):
        """Eq. 4 over the whole training set, by the network and by its twin."""
        f, f_hat = jnp.split(both, 2, axis=-1)
        R, R_hat = total(f, assign(params, f), hard), total(f_hat, assign(memory["twin"], f_hat), hard)
        return params, stats, enqueue(memory | {"sum": R, "sum_hat": R_hat}, "P", normalise(R_hat))

    def plan(epoch):
        if epoch < s.init_epoch:
            return (Pass("warm_up"),)
        placed = "prototypes" if s.init_epoch and epoch == s.init_epoch else None
        if s.aggregate == "whole":
            return Pass("instances", refit=placed), Pass("clusters", refit="aggregate")
        return (Pass("both", refit=placed),)

    def predict(params, stats, shown, x):
        h, f, _ = embed(params, stats, x, train=False)
        return Prediction(jnp.exp(assign(params, f)), {"f": f, "backbone": h})

    plain, *strong = s.views

    def task(loss, clusters=True):
        through_both = clusters and not s.augment_clusters  # then the plain view goes through both networks too
        views = (*strong, plain) if through_both else tuple(strong)
        passes = (("gradient", 1), ("forward", 1)) * (2 if through_both else 1)
        return Task(views, loss, commit, passes, in_parts=True)

    if s.aggregate == "whole":
        tasks = {
            "instances": task(functools.partial(step, cluster=False), clusters=False),
            "clusters": task(functools.partial(step, instance=False)),
        }
        refits = {"aggregate": Refit(strong[0], show_both, aggregate)}
    else:
        tasks, refits = {"both": task(step)}, {}
    if s.init_epoch:
        # With its own entropy as the bonus an assignment stays soft, and L2 is nearly MoCo's loss.
        tasks["warm_up"] = task(functools.partial(step, cluster=False, bonus="sample"), clusters=False)
        refits["prototypes"] = Refit(plain, show, place)
    return Method(
        init=init,
        tasks=tasks,
        refits=refits,
        plan=plan,
        predict=predict,
        space="f",
        reported={"arg max of pi": "cluster"},
    )


def info_nce(anchor, positive, candidates, tau, excluded=None):
    """-log of the share that the positive has among itself and the candidates, f32[...].

    Args:
      anchor: f32[..., D].
      positive: f32[..., D], one for each anchor.
      candidates: f32[L, D], the negatives.
      tau: temperature.
      excluded: bool[..., L], candidates that are no negatives of an anchor.
    """
    same = jnp.sum(anchor * positive, axis=-1, keepdims=True) / tau  # f32[..., 1]
    other = jnp.matmul(anchor, candidates.T, precision=HIGHEST) / tau  # f32[..., L]
    if excluded is not None:
        other = jnp.where(excluded, -jnp.inf, other)
    return jax.nn.logsumexp(jnp.concatenate([same, other], axis=-1), axis=-1) - same[..., 0]


def entropy(log_p):
    """Of each row, in nats, f32[...]."""
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def enqueue(memory, name, rows):
    """Writes rows f32[B, D] over the oldest of the queue `name`, f32[L, D], B <= L, where there is one."""
    if name not in memory:
        return memory
    queue, start = memory[name], memory[f"{name}_next"]
    at = (start + jnp.arange(len(rows))) % len(queue)
    return memory | {name: queue.at[at].set(rows), f"{name}_next": (start + len(rows)) % len(queue)}


def dead_rows(queue):
    """How many rows are no direction, as of a cluster without images, f32[]."""
    return jnp.sum(~(jnp.linalg.norm(queue, axis=-1) > 0.5)).astype(jnp.float32)
