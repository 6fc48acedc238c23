"""Cluster Analysis with Deep Embeddings and Contrastive Learning (Sundareswaran et al., 2021,
arXiv:2109.12714): "Anchor".

SimCLR's loss shapes the features, DEC's centres cluster the plain image, and the anchor loss makes the augmented
images agree with it. The paper numbers no equations; in its order, with h = f(x), z = g_I(h), q = g_C(h):

    instance   l^I   NT-Xent between z1 and z2, over 2N views
    q          q_ij  Student-t assignment of h_i to the trainable centres mu_j (`losses.student_t`)
    p          p_ij  sharpened target, frequencies over the batch (`losses.dec_target`), no gradient
    cluster    l^C   KL(p0 || q0) on the plain image
    anchor     l^A   KL(q0 || q1) + KL(q0 || q2), or another row of Table 5
    total            alpha * instance + beta * cluster + gamma * anchor = 20, 0.1, 0.1

Deviations:
  * The printed indices of q and p are wrong in the paper; DEC's formulas, which it cites, are used.
  * NT-Xent leaves the self term out of its denominator, as SimCLR and the released code do; the paper prints it.
  * `stop_gradient` (default on, as released): no gradient through the first argument of the anchor's KL.
  * The released training file weighs the losses 1, 1, 1; the paper's 20, 0.1, 0.1 are the configs' default.
  * `init_epoch` 0 places the centres before the first step, as the paper does, where they mean little a few
    epochs later. A later epoch trains the instance loss alone until then.
  * `init_features` says what that k-means sees: "batches" plain images, normalised by the statistics of batches of 32,
    as the released code does (which always makes ten clusters); "eval" plain images and running statistics; "train"
    augmented images and the statistics of training batches. An untrained network's running statistics are no
    statistics yet: see `configs/README.md` for what that does to the first epochs.
  * `init_sample` lets k-means see a sample instead of all images.
  * `space` "projection" puts the centres among `scale` * z / |z| instead of h.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxclust import nets
from jaxclust.ops import assignment
from jaxclust.ops.losses import dec_target, kl, normalise, nt_xent, student_t
from jaxclust.run.errors import ConfigError
from jaxclust.run.schema import Check, option, settings
from jaxclust.types import Batch, Method, Out, Pass, Prediction, Published, Refit, Task, keep_memory

ANCHORS = ("q0_q", "p0_q", "p_q", "jsd")
SPACES = ("backbone", "projection")
FEATURES = ("eval", "train", "batches")
RELEASED_BATCH = 32  # of the released code's k-means

PUBLISHED = tuple(  # Table 1: "Ours(Cluster)" and "Ours(Representation)"
    Published("Anchor, Table 1", data, clusters, quantity, *scores)
    for data, clusters, *rows in (
        ("cifar10", 10, (0.772, 0.805, 0.698), (0.766, 0.805, 0.703)),
        ("imagenet10", 10, (0.804, 0.674, 0.588), (0.776, 0.598, 0.536)),
        ("imagenet_dogs", 15, (0.326, 0.281, 0.069), (0.525, 0.534, 0.275)),
        ("tiny_imagenet", 200, (0.292, 0.100, 0.042), (0.346, 0.158, 0.069)),
    )
    for quantity, scores in zip(("cluster", "representation"), rows, strict=True)
)


def _is_weight(weight: float | tuple) -> bool:
    """Whether steps rise, where a weight has any."""
    if not isinstance(weight, tuple | list):
        return True
    try:
        steps = [float(step) for step, value in weight]
        [float(value) for step, value in weight]
    except (TypeError, ValueError):
        return False
    return steps != [] and steps == sorted(set(steps))


WEIGHT = Check(_is_weight, "give a number, or ((step, weight), ...) with rising steps")


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str
    # policies of x0, x1, x2 (Table 3)
    views: tuple = option(check=Check(lambda v: len(v) == 3, "Anchor takes three: x0, x1, x2"))
    projection: int = option(at_least=1)  # width of z
    tau: float = option(above=0)  # temperature of the instance loss
    alpha: float = option(above=0)  # degrees of freedom of the Student-t kernel
    instance: float | tuple = option(check=WEIGHT)  # loss weights (Table 4): a number, or knots joined by lines
    cluster: float | tuple = option(check=WEIGHT)
    anchor: float | tuple = option(check=WEIGHT)
    anchor_loss: str = option(choices=ANCHORS)  # Table 5; "q0_q" is the paper's choice
    stop_gradient: bool
    space: str = option(choices=SPACES)  # where the centres live: "backbone" (paper) or "projection"
    # Length of the embeddings in the space "projection"; the paper's backbone is left as it is.
    scale: float = option(above=0)
    init_epoch: int = option(at_least=0)  # k-means places the centres at the start of this epoch; 0 is the paper
    init_features: str = option(choices=FEATURES)  # "batches" is the released code's
    init_sample: int = option(at_least=0)  # images that k-means sees, drawn at random; 0 is all


def cluster_loss(p0, log_q0):
    """l^C f32[]: KL(p0 || q0) on the plain image, of p0 and log q0 f32[B, K]."""
    return jnp.mean(kl(p0, log_q0))


def anchor_loss(q, p, log_q, kind: str = "q0_q", stop_gradient: bool = True):
    """l^A f32[], a row of Table 5, of three of each f32[B, K]: on the plain image and its two views.

    Args:
      q: the assignments.
      p: their sharpened targets.
      log_q: log q.
      kind: of `ANCHORS`.
      stop_gradient: whether no gradient flows through q0.
    """
    fixed = jax.lax.stop_gradient if stop_gradient else lambda a: a
    if kind == "q0_q":
        return jnp.mean(kl(fixed(q[0]), log_q[1]) + kl(fixed(q[0]), log_q[2]))
    if kind == "p0_q":
        return jnp.mean(kl(p[0], log_q[1]) + kl(p[0], log_q[2]))
    if kind == "p_q":
        return jnp.mean(kl(p[1], log_q[2]) + kl(p[2], log_q[1]))
    log_m = jnp.logaddexp(log_q[1], log_q[2]) - jnp.log(2.0)
    return jnp.mean(0.5 * (kl(q[1], log_m) + kl(q[2], log_m)))


def make(config: Mapping[str, Any]) -> Method:
    s: Settings = settings(Settings, config["method"], "method")
    f = nets.backbone(settings(nets.Settings, config["net"], "net"))
    g_i = nets.MLP(hidden=f.features, out=s.projection, dtype=f.dtype)
    clusters, parts = config["clusters"], config["train"]["accumulate"]
    if 0 < s.init_sample < clusters:
        raise ConfigError(f"method.init_sample is {s.init_sample}, fewer than the {clusters} clusters")

    def init(key, spec):
        key_f, key_g = jax.random.split(key)
        params, stats = nets.start(f, key_f, spec.size, spec.channels)
        head = g_i.init(key_g, jnp.zeros((1, f.features)))["params"]
        # Zero centres stand for "not placed": every image then belongs to all clusters alike.
        mu = jnp.zeros((clusters, f.features if s.space == "backbone" else s.projection))
        return {"f": params, "g_i": head, "mu": mu}, stats, {}

    def embed(params, stats, x, train, parts=1):
        """f32[B, H, W, C] -> h f32[B, D], z f32[B, 128] of unit length, and the new running statistics."""
        h, stats = nets.embed(f, params["f"], stats, x, train, parts)
        return h, normalise(g_i.apply({"params": params["g_i"]}, h)), stats

    def located(h, z):
        """The embedding that the centres live among."""
        return h if s.space == "backbone" else s.scale * z

    def contrast(params, stats, memory, batch: Batch, key):
        """Before the centres are placed: the instance loss alone, on x1 and x2."""
        x1, x2 = batch.views
        _, z1, stats = embed(params, stats, x1, True, parts)
        _, z2, stats = embed(params, stats, x2, True, parts)
        instance = nt_xent(z1, z2, s.tau)
        loss = _weight(s.instance, batch.step) * instance
        return loss, Out(stats, (), {"loss": loss, "instance": instance})

    def cluster(params, stats, memory, batch: Batch, key):
        """All three losses."""
        z, log_q = [], []
        for x in batch.views:  # a pass each, so that each view is normalised by its own statistics
            h_v, z_v, stats = embed(params, stats, x, True, parts)
            z.append(z_v)
            log_q.append(student_t(located(h_v, z_v), params["mu"], s.alpha))
        q = [jnp.exp(l) for l in log_q]
        p = [jax.lax.stop_gradient(dec_target(q_v)) for q_v in q]

        terms = {
            "instance": nt_xent(z[1], z[2], s.tau),
            "cluster": cluster_loss(p[0], log_q[0]),
            "anchor": anchor_loss(q, p, log_q, s.anchor_loss, s.stop_gradient),
        }
        loss = sum(_weight(getattr(s, name), batch.step) * term for name, term in terms.items())
        metrics = {
            **terms,
            "loss": loss,
            "centre_distance": _mean_distance(params["mu"]),
            "confidence": jnp.mean(jnp.max(q[0], axis=-1)),
            "sizes": jnp.bincount(jnp.argmax(q[0], axis=-1), length=clusters).astype(jnp.float32),
        }
        return loss, Out(stats, (), metrics)

    def features(params, stats, memory, x, key):
        h, z, _ = embed(params, stats, x, s.init_features != "eval")
        return located(h, z)

    def place(params, stats, memory, h, key):
        return {**params, "mu": assignment.kmeans(key, h, clusters).centres}, stats, memory

    def plan(epoch):
        if epoch < s.init_epoch:
            return (Pass("contrast"),)
        return (Pass("cluster", refit="centres" if epoch == s.init_epoch else None),)

    def predict(params, stats, shown, x):
        h, z, _ = embed(params, stats, x, False)
        q = jnp.exp(student_t(located(h, z), params["mu"], s.alpha))
        return Prediction(q, {"backbone": h, "projection": z})

    centres = Refit(
        view=s.views[1 if s.init_features == "train" else 0],
        embed=features,
        update=place,
        sample=s.init_sample,
        batch=RELEASED_BATCH if s.init_features == "batches" else 0,
    )
    return Method(
        init=init,
        tasks={
            "contrast": Task(tuple(s.views[1:]), contrast, keep_memory, in_parts=True),
            "cluster": Task(tuple(s.views), cluster, keep_memory, in_parts=True),
        },
        refits={"centres": centres},
        plan=plan,
        predict=predict,
        space=s.space,
        pictured="projection",  # Figure 3: of the instance head
        reported={
            "cluster": "cluster",
            "representation": "kmeans_projection",
            "representation, released code": "kmeans_backbone",
        },
    )


def _weight(weight: float | tuple, step):
    if not isinstance(weight, tuple | list):
        return weight
    steps, values = zip(*weight)
    return jnp.interp(step.astype(jnp.float32), jnp.asarray(steps, jnp.float32), jnp.asarray(values, jnp.float32))


def _mean_distance(mu):
    """Mean distance between two centres, f32[]; it has no gradient to give."""
    mu = jax.lax.stop_gradient(mu)
    k = mu.shape[0]
    return jnp.sum(jnp.sqrt(jnp.sum((mu[:, None] - mu[None]) ** 2, axis=-1))) / (k * (k - 1))
