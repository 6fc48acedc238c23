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
  * `init_features` "eval" embeds plain images with running statistics; "train" embeds augmented ones with the
    statistics of each batch, as the released code does.
  * `init_sample` lets k-means see a sample instead of all images.
  * `space` "projection" puts the centres among `scale` * z / |z| instead of h.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxclust import assign, nets
from jaxclust.config import ConfigError, settings
from jaxclust.losses import dec_target, kl, normalise, nt_xent, student_t
from jaxclust.types import Batch, Method, Out, Pass, Prediction, Refit, Task, keep_memory

ANCHORS = ("q0_q", "p0_q", "p_q", "jsd")
SPACES = ("backbone", "projection")
FEATURES = ("eval", "train")


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str
    views: tuple  # policies of x0, x1, x2 (Table 3)
    projection: int  # width of z
    tau: float  # temperature of the instance loss
    alpha: float  # degrees of freedom of the Student-t kernel
    instance: float | tuple  # loss weights (Table 4): a number, or ((step, weight), ...) joined by lines
    cluster: float | tuple
    anchor: float | tuple
    anchor_loss: str  # Table 5: "q0_q" (the paper's choice), "p0_q", "p_q" or "jsd"
    stop_gradient: bool
    space: str  # where the centres live: "backbone" (paper) or "projection"
    scale: float  # length of the embeddings in the space "projection"; the paper's backbone is left as it is
    init_epoch: int  # k-means places the centres at the start of this epoch; 0 is the paper
    init_features: str  # "eval" or "train"
    init_sample: int  # images that k-means sees, drawn at random; 0 is all

    def __post_init__(self):
        if len(self.views) != 3:
            raise ValueError(f"method.views names {len(self.views)} views; Anchor takes three: x0, x1, x2")
        for name, options in (("anchor_loss", ANCHORS), ("space", SPACES), ("init_features", FEATURES)):
            if getattr(self, name) not in options:
                raise ValueError(f"method.{name} is {getattr(self, name)!r}; choose one of {', '.join(options)}")
        for name in ("tau", "alpha", "scale"):
            if getattr(self, name) <= 0:
                raise ValueError(f"method.{name} is {getattr(self, name)}; it must be positive")
        for name in ("init_epoch", "init_sample"):
            if getattr(self, name) < 0:
                raise ValueError(f"method.{name} is {getattr(self, name)}; it must not be negative")
        if self.projection < 1:
            raise ValueError(f"method.projection is {self.projection}; it must be at least 1")
        for name in ("instance", "cluster", "anchor"):
            _knots(name, getattr(self, name))


def make(config: Mapping[str, Any]) -> Method:
    s: Settings = settings(Settings, config["method"], "method")
    f = nets.backbone(settings(nets.Settings, config["net"], "net"))
    g_i = nets.MLP(hidden=f.features, out=s.projection, dtype=f.dtype)
    clusters = config["clusters"]
    if 0 < s.init_sample < clusters:
        raise ConfigError(f"method.init_sample is {s.init_sample}, fewer than the {clusters} clusters")

    def init(key, spec):
        key_f, key_g = jax.random.split(key)
        variables = f.init(key_f, jnp.zeros((1, spec.size, spec.size, spec.channels)), train=False)
        head = g_i.init(key_g, jnp.zeros((1, f.features)))["params"]
        # Zero centres stand for "not placed": every image then belongs to all clusters alike.
        mu = jnp.zeros((clusters, f.features if s.space == "backbone" else s.projection))
        return {"f": variables["params"], "g_i": head, "mu": mu}, variables["batch_stats"], {}

    def embed(params, stats, x, train):
        """f32[B, H, W, C] -> h f32[B, D], z f32[B, 128] of unit length, and the new running statistics."""
        variables = {"params": params["f"], "batch_stats": stats}
        h, new = f.apply(variables, x, train=train, mutable=["batch_stats"])
        return h, normalise(g_i.apply({"params": params["g_i"]}, h)), new["batch_stats"]

    def located(h, z):
        """The embedding that the centres live among."""
        return h if s.space == "backbone" else s.scale * z

    def contrast(params, stats, memory, batch: Batch, key):
        """Before the centres are placed: the instance loss alone, on x1 and x2."""
        x1, x2 = batch.views
        _, z1, stats = embed(params, stats, x1, True)
        _, z2, stats = embed(params, stats, x2, True)
        instance = nt_xent(z1, z2, s.tau)
        loss = _weight(s.instance, batch.step) * instance
        return loss, Out(stats, (), {"loss": loss, "instance": instance})

    def cluster(params, stats, memory, batch: Batch, key):
        """All three losses."""
        h, z, log_q = [], [], []
        for x in batch.views:  # a pass each, so that each view is normalised by its own statistics
            h_v, z_v, stats = embed(params, stats, x, True)
            h.append(h_v)
            z.append(z_v)
            log_q.append(student_t(located(h_v, z_v), params["mu"], s.alpha))
        q = [jnp.exp(l) for l in log_q]
        p = [jax.lax.stop_gradient(dec_target(q_v)) for q_v in q]

        terms = {
            "instance": nt_xent(z[1], z[2], s.tau),
            "cluster": jnp.mean(kl(p[0], log_q[0])),
            "anchor": jnp.mean(anchor(q, p, log_q)),
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

    def anchor(q, p, log_q):
        """The rows of Table 5, f32[B]."""
        fixed = jax.lax.stop_gradient if s.stop_gradient else lambda a: a
        if s.anchor_loss == "q0_q":
            return kl(fixed(q[0]), log_q[1]) + kl(fixed(q[0]), log_q[2])
        if s.anchor_loss == "p0_q":
            return kl(p[0], log_q[1]) + kl(p[0], log_q[2])
        if s.anchor_loss == "p_q":
            return kl(p[1], log_q[2]) + kl(p[2], log_q[1])
        log_m = jnp.logaddexp(log_q[1], log_q[2]) - jnp.log(2.0)
        return 0.5 * (kl(q[1], log_m) + kl(q[2], log_m))

    def features(params, stats, memory, x, key):
        h, z, _ = embed(params, stats, x, s.init_features == "train")
        return located(h, z)

    shown = s.views[0] if s.init_features == "eval" else s.views[1]

    def place(params, memory, h, key):
        return {**params, "mu": assign.kmeans(key, h, clusters).centres}, memory

    def plan(epoch):
        if epoch < s.init_epoch:
            return (Pass("contrast"),)
        return (Pass("cluster", refit="centres" if epoch == s.init_epoch else None),)

    def predict(params, stats, x):
        h, z, _ = embed(params, stats, x, False)
        q = jnp.exp(student_t(located(h, z), params["mu"], s.alpha))
        return Prediction(q, {"backbone": h, "projection": z})

    return Method(
        init=init,
        tasks={
            "contrast": Task(tuple(s.views[1:]), contrast, keep_memory),
            "cluster": Task(tuple(s.views), cluster, keep_memory),
        },
        refits={"centres": Refit(shown, features, place, s.init_sample)},
        plan=plan,
        predict=predict,
        reported={
            "cluster": "cluster",
            "representation": "kmeans_projection",
            "representation, released code": "kmeans_backbone",
        },
    )


def _knots(name: str, weight: float | tuple) -> tuple:
    """A loss weight as ((step, weight), ...), in rising order of steps."""
    if not isinstance(weight, tuple | list):
        return ((0, weight),)
    try:
        steps = [float(step) for step, value in weight]
        [float(value) for step, value in weight]
    except (TypeError, ValueError):
        steps = []
    if not steps or steps != sorted(set(steps)):
        raise ValueError(f"method.{name} is {weight!r}; give a number, or ((step, weight), ...) with rising steps")
    return tuple(weight)


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
