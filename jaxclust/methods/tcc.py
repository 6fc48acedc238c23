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

from jaxclust import assign, nets
from jaxclust.config import ConfigError, settings
from jaxclust.losses import HIGHEST, dec_target, kl, normalise
from jaxclust.types import Batch, Method, Out, Pass, Prediction, Refit, Task

CHOICES = {
    "assignment": ("dot", "cosine"),
    "entropy": ("sample", "marginal", "mutual"),
    "aggregate": ("soft", "hard", "whole"),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str
    views: tuple  # policies of the plain view, the network's and the twin's
    features: int  # width of f
    assignment: str  # "dot" (paper) or "cosine"
    scale: float  # of the cosine, and of the logits where k-means places mu
    alpha: float  # weight of L1; 1 - alpha is L2's (Table 3, i and ii; Figure 4a)
    tau: float  # temperature of both contrasts
    lam: float  # lambda, temperature of the Gumbel-softmax (Figure 4b)
    samples: int  # of c for each image (Table 3, iii)
    momentum: float  # of the twins
    entropy: str  # "sample" (paper), "marginal" or "mutual"
    sharpness: float  # weight of the images' own entropy in "mutual"
    consistency: float  # weight of the agreement with the twin's assignment; 0 in the paper
    init_epoch: int  # k-means places mu at the start of this epoch; 0 is never
    queue_clusters: int  # L / K, steps that P remembers (Figure 4c); 0 does without P (Table 3, iv)
    queue_instances: int  # J, rows of Q
    augment_clusters: bool  # whether L1 sees augmented views (Table 3, v)
    aggregate: str  # "soft" (paper), "hard" (Table 3, vi) or "whole" (Table 3, vii)

    def __post_init__(self):
        if len(self.views) != 3:
            raise ValueError(f"method.views names {len(self.views)} views; TCC takes three: plain, network's, twin's")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"method.{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}")
        for name in ("scale", "tau", "lam"):
            if getattr(self, name) <= 0:
                raise ValueError(f"method.{name} is {getattr(self, name)}; it must be positive")
        for name in ("alpha", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"method.{name} is {getattr(self, name)}; it must be from 0 to 1")
        for name in ("features", "samples", "queue_instances"):
            if getattr(self, name) < 1:
                raise ValueError(f"method.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("sharpness", "consistency", "init_epoch", "queue_clusters"):
            if getattr(self, name) < 0:
                raise ValueError(f"method.{name} is {getattr(self, name)}; it must not be negative")


def make(config: Mapping[str, Any]) -> Method:
    s: Settings = settings(Settings, config["method"], "method")
    backbone = nets.backbone(settings(nets.Settings, config["net"], "net"))
    K = config["clusters"]
    last, nn = nets.Linear(s.features), nets.Linear(s.features)
    if config["train"]["batch_size"] > s.queue_instances:
        raise ConfigError(
            f"train.batch_size is {config['train']['batch_size']}, more than the {s.queue_instances} rows of "
            f"method.queue_instances"
        )

    def init(key, spec):
        keys = jax.random.split(key, 6)
        variables = backbone.init(keys[0], jnp.zeros((1, spec.size, spec.size, spec.channels)), train=False)
        params = {
            "backbone": variables["params"],
            "last": last.init(keys[1], jnp.zeros((1, backbone.features)))["params"],
            "mu": jax.random.normal(keys[2], (K, s.features)) / s.features**0.5,
            "nn": nn.init(keys[3], jnp.zeros((1, K)))["params"],
        }
        memory = {"twin": params, "twin_stats": variables["batch_stats"]}
        for name, key_q, rows in (("P", keys[4], s.queue_clusters * K), ("Q", keys[5], s.queue_instances)):
            if rows:
                memory[name] = normalise(jax.random.normal(key_q, (rows, s.features)))
                memory[f"{name}_next"] = jnp.zeros((), jnp.int32)  # the row that is written next
        if s.aggregate == "whole":
            memory |= {name: jnp.zeros((K, s.features)) for name in ("sum", "sum_hat")}
        # Twins of their own: a buffer that is donated twice would be an error.
        return params, variables["batch_stats"], jax.tree.map(jnp.copy, memory)

    def embed(params, stats, x, train=True):
        """f32[B, H, W, C] -> h f32[B, D], f(x) f32[B, 128], and the new running statistics."""
        h, new = backbone.apply(
            {"params": params["backbone"], "batch_stats": stats}, x, train=train, mutable=["batch_stats"]
        )
        return h, last.apply({"params": params["last"]}, h), new["batch_stats"]

    def log_pi(params, f):
        """Eq. 3, f32[B, K]."""
        mu = params["mu"]
        if s.assignment == "cosine":
            f, mu = normalise(f), s.scale * normalise(mu)
        return jax.nn.log_softmax(jnp.matmul(f, mu.T, precision=HIGHEST))

    def total(log_pi, f):
        """Eq. 4 before it is normalised, f32[K, 128]."""
        weight = jax.nn.one_hot(jnp.argmax(log_pi, axis=-1), K) if s.aggregate == "hard" else jnp.exp(log_pi)
        return jnp.matmul(weight.T, f, precision=HIGHEST)

    def e(params, f, log_pi, key):
        """Eq. 7, f32[S, B, 128]."""
        noise = jax.random.gumbel(key, (s.samples, *log_pi.shape))
        c = jax.nn.softmax((log_pi + noise) / s.lam)
        return normalise(f + nn.apply({"params": params["nn"]}, c))

    def l1(r, r_hat, candidates):
        """Eq. 5, f32[]; the candidates are the rows of P."""
        own = jnp.arange(len(candidates)) % K == jnp.arange(K)[:, None]  # bool[K, L]
        return jnp.mean(info_nce(r, r_hat, candidates, s.tau, own))

    def l2(e, e_hat, log_pi, Q, bonus):
        """Eq. 8, f32[]."""
        own = jnp.mean(entropy(log_pi))
        mean = entropy(jax.nn.logsumexp(log_pi, axis=0) - jnp.log(len(log_pi)))
        bonus = {"sample": own, "marginal": mean, "mutual": mean - s.sharpness * own}[bonus]
        return jnp.mean(info_nce(e, e_hat, Q, s.tau)) + jnp.log(K) - bonus

    def step(params, stats, memory, batch: Batch, key, cluster=True, instance=True, bonus=s.entropy):
        """Eq. 9, or one of its losses alone."""
        x, x_hat, *plain = batch.views
        twin = memory["twin"]
        _, f, stats = embed(params, stats, x)
        _, f_hat, twin_stats = embed(twin, memory["twin_stats"], x_hat)  # constant: only `params` are differentiated
        log_p, log_p_hat = log_pi(params, f), log_pi(twin, f_hat)
        carry, terms = {"twin_stats": twin_stats}, {}

        if cluster:
            if plain:
                _, f0, stats = embed(params, stats, *plain)
                _, f0_hat, carry["twin_stats"] = embed(twin, twin_stats, *plain)
                R, R_hat = total(log_pi(params, f0), f0), total(log_pi(twin, f0_hat), f0_hat)
            else:
                R, R_hat = total(log_p, f), total(log_p_hat, f_hat)
            if s.aggregate == "whole":
                R, R_hat = memory["sum"] + R - jax.lax.stop_gradient(R), memory["sum_hat"]
            r, r_hat = normalise(R), normalise(R_hat)
            terms["l1"] = l1(r, r_hat, memory.get("P", r_hat))
            carry["r_hat"] = r_hat
        if instance:
            key, key_hat = jax.random.split(key)
            e_i, e_hat = e(params, f, log_p, key), e(twin, f_hat, log_p_hat, key_hat)
            terms["l2"] = l2(e_i, e_hat, log_p, memory["Q"], bonus)
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

    def place(params, memory, f, key):
        """mu at the k-means centres of the directions of f."""
        mu = normalise(assign.kmeans(key, normalise(f), K).centres)
        if s.assignment == "dot":
            mu *= s.scale / jnp.mean(jnp.linalg.norm(f, axis=-1))
        return params | {"mu": mu}, memory | {"twin": memory["twin"] | {"mu": mu}}

    def show(params, stats, memory, x, key):
        return embed(params, stats, x, train=False)[1]

    def show_both(params, stats, memory, x, key):
        f_hat = embed(memory["twin"], memory["twin_stats"], x, train=False)[1]
        return jnp.concatenate([show(params, stats, memory, x, key), f_hat], axis=-1)

    def aggregate(params, memory, both, key):
        """Eq. 4 over the whole training set, by the network and by its twin."""
        f, f_hat = jnp.split(both, 2, axis=-1)
        R, R_hat = total(log_pi(params, f), f), total(log_pi(memory["twin"], f_hat), f_hat)
        return params, enqueue(memory | {"sum": R, "sum_hat": R_hat}, "P", normalise(R_hat))

    def plan(epoch):
        if epoch < s.init_epoch:
            return (Pass("warm_up"),)
        placed = "prototypes" if s.init_epoch and epoch == s.init_epoch else None
        if s.aggregate == "whole":
            return Pass("instances", refit=placed), Pass("clusters", refit="aggregate")
        return (Pass("both", refit=placed),)

    def predict(params, stats, x):
        h, f, _ = embed(params, stats, x, train=False)
        return Prediction(jnp.exp(log_pi(params, f)), {"f": f, "backbone": h})

    plain, *strong = s.views

    def task(loss, clusters=True):
        through_both = clusters and not s.augment_clusters  # then the plain view goes through both networks too
        views = (*strong, plain) if through_both else tuple(strong)
        return Task(views, loss, commit, backbone_passes=(("gradient", 1), ("forward", 1)) * (2 if through_both else 1))

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
