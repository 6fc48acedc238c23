"""Contrastive Clustering (Li et al., AAAI 2021, arXiv:2009.09687): "CC".

Two heads on one backbone. In a batch's matrix of soft assignments a row is an image and a column is a cluster: the
instance head contrasts images, the cluster head contrasts columns. With h = f(x), z = g_I(h), y = g_C(h) and the two
views a and b:

    eq. 1-3    L_ins   NT-Xent between z^a and z^b, over 2N views of images, tau_I
    eq. 4-6    L_clu   NT-Xent between the columns of y^a and y^b, over 2K views of clusters, tau_C
                       minus H, the entropy of the mean assignment P of each view
    eq. 7      L       L_ins + L_clu

Deviations:
  * The paper prints H = sum P log P, whose sign would reward putting everything into one cluster. Entropy is
    maximised here, as in the released code: sum_k P(k) log P(k) + log K is added for each view, and is 0 at best.
  * `self_term` (default off, as released): the paper prints eq. 2 and 5 with a row in its own denominator.
  * On STL-10 the paper trains on the unlabelled images too, with the instance loss alone: `instance_split` names
    the split, and an epoch is then a pass over it and a pass of both losses over "train".
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxclust import nets
from jaxclust.ops.losses import normalise, nt_xent
from jaxclust.run.errors import ConfigError
from jaxclust.run.schema import Check, option, settings
from jaxclust.types import Batch, Method, Out, Pass, Prediction, Published, Task, keep_memory

PUBLISHED = tuple(
    Published("CC, Table 2", data, clusters, "cluster head", *scores)
    for data, clusters, *scores in (
        ("cifar10", 10, 0.705, 0.790, 0.637),
        ("cifar100", 20, 0.431, 0.429, 0.266),  # the 20 superclasses
        ("stl10", 10, 0.764, 0.850, 0.726),
        ("imagenet10", 10, 0.859, 0.893, 0.822),
        ("imagenet_dogs", 15, 0.445, 0.429, 0.274),
        ("tiny_imagenet", 200, 0.340, 0.140, 0.071),
    )
)


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str
    views: tuple = option(check=Check(lambda v: len(v) == 2, "CC takes two"))  # policies of the two views (Table 3)
    projection: int = option(at_least=1)  # width of z
    tau_instance: float = option(above=0)
    tau_cluster: float = option(above=0)
    instance: float = option(at_least=0)  # loss weights; 0 leaves a head out (Table 4)
    cluster: float = option(at_least=0)
    self_term: bool  # whether a row is in its own denominator
    instance_split: str  # a split for the instance loss alone, before each pass over "train"; "" is none

    def __post_init__(self):
        if self.instance == self.cluster == 0:
            raise ConfigError("method.instance and method.cluster are both 0; give one of them a weight")


def instance_loss(z_a, z_b, tau: float, self_term: bool = False):
    """Eq. 3, L_ins f32[]: the contrast between the rows of z_a and z_b f32[B, D], images in two views."""
    return nt_xent(z_a, z_b, tau, self_term)


def cluster_loss(y_a, y_b, tau: float, self_term: bool = False):
    """Eq. 6, L_clu f32[]: the contrast between the columns of y_a and y_b f32[B, K], clusters in two views, less H."""
    return nt_xent(y_a.T, y_b.T, tau, self_term) + unevenness(y_a) + unevenness(y_b)


def unevenness(y):
    """log K - H(P) of the mean assignment P, in nats: 0 when the batch fills all clusters alike.

    Args:
      y: soft assignment, f32[B, K].
    """
    p = jnp.mean(y, axis=0)
    return jnp.sum(jax.scipy.special.xlogy(p, p)) + jnp.log(float(p.size))


def make(config: Mapping[str, Any]) -> Method:
    s: Settings = settings(Settings, config["method"], "method")
    f = nets.backbone(settings(nets.Settings, config["net"], "net"))
    clusters, parts = config["clusters"], config["train"]["accumulate"]
    g_i = nets.MLP(hidden=f.features, out=s.projection, dtype=f.dtype)
    g_c = nets.MLP(hidden=f.features, out=clusters, dtype=f.dtype)
    if s.instance_split and s.instance_split not in config["data"]["splits"]:
        raise ConfigError(f"method.instance_split is {s.instance_split!r}, which is not in data.splits")

    def init(key, spec):
        key_f, key_i, key_c = jax.random.split(key, 3)
        params, stats = nets.start(f, key_f, spec.size, spec.channels)
        h = jnp.zeros((1, f.features))
        return {"f": params, "g_i": g_i.init(key_i, h)["params"], "g_c": g_c.init(key_c, h)["params"]}, stats, {}

    def project(params, h):
        return g_i.apply({"params": params["g_i"]}, h)  # z f32[B, 128]

    def assign(params, h):
        return jax.nn.softmax(g_c.apply({"params": params["g_c"]}, h))  # y f32[B, K]

    def embed(params, stats, views):
        """h of each view f32[B, D], each normalised by its own statistics."""
        h_a, stats = nets.embed(f, params["f"], stats, views[0], True, parts)
        h_b, stats = nets.embed(f, params["f"], stats, views[1], True, parts)
        return h_a, h_b, stats

    def both(params, stats, memory, batch: Batch, key):
        """Eq. 7."""
        h_a, h_b, stats = embed(params, stats, batch.views)
        y_a, y_b = assign(params, h_a), assign(params, h_b)
        terms = {
            "instance": instance_loss(project(params, h_a), project(params, h_b), s.tau_instance, s.self_term),
            "cluster": cluster_loss(y_a, y_b, s.tau_cluster, s.self_term),
        }
        loss = s.instance * terms["instance"] + s.cluster * terms["cluster"]
        metrics = {
            **terms,
            "loss": loss,
            "unevenness": (unevenness(y_a) + unevenness(y_b)) / 2,
            "confidence": jnp.mean(jnp.max(y_a, axis=-1)),
            "sizes": jnp.bincount(jnp.argmax(y_a, axis=-1), length=clusters).astype(jnp.float32),
        }
        return loss, Out(stats, (), metrics)

    def instance(params, stats, memory, batch: Batch, key):
        """Eq. 3 alone, for images that no cluster should be made of."""
        h_a, h_b, stats = embed(params, stats, batch.views)
        loss = instance_loss(project(params, h_a), project(params, h_b), s.tau_instance, s.self_term)
        return loss, Out(stats, (), {"loss": loss, "instance": loss})

    def plan(epoch):
        return (*([Pass("instance", s.instance_split)] if s.instance_split else []), Pass("both"))

    def predict(params, stats, shown, x):
        h, _ = nets.embed(f, params["f"], stats, x, False)
        return Prediction(assign(params, h), {"backbone": h, "projection": normalise(project(params, h))})

    tasks = {"both": Task(tuple(s.views), both, keep_memory, in_parts=True)}
    if s.instance_split:
        tasks["instance"] = Task(tuple(s.views), instance, keep_memory, in_parts=True)
    return Method(
        init=init,
        tasks=tasks,
        refits={},
        plan=plan,
        predict=predict,
        space="backbone",
        pictured="projection",  # Figure 4: of the instance head
        reported={"cluster head": "cluster"},
    )
