"""Multi-Modal Deep Clustering (Shiran and Weinshall, ICPR 2020, arXiv:1912.02678): "MMDC".

Each image has a target on the unit sphere, drawn once from K Gaussians around means mu_k. A step hands the targets of
its batch out anew among these images, as near as can be to where the network puts them, and then pulls the network
towards them. With f_theta(x) = z, the normalised output of a linear layer on the backbone features h:

    eq. 1      L_c   distance of z to the targets; P by linear assignment on centre crops, theta on augmented ones
    eq. 2      T     u ~ N(mu_k, sigma I) with k uniform, t = u / |u|
    eq. 3      c_i   nearest mean, argmin_k |z_i - mu_k|
    III-D      L_r   RotNet: which quarter turn of four, cross-entropy on another linear layer
    III-E            refinement: k-means on all outputs gives the targets, and batches reassign no more

Settings make of it the other rows of Table IV: Noise as Targets with `means` "none" and no rotation, NAT+RotNet with
rotation, RotNet with `assignment` off; in MMDC's procedure, where the paper follows those of their own papers.

Deviations:
  * Eq. 1 is a mean of distances. P minimises the sum of Euclidean distances, theta the mean square over all N x d
    entries, as released.
  * Algorithm 1 prints the assignment pass before the rotation pass; here, as released, rotation comes first.
  * The assignment is solved in `group`s of images (the paper's batch, 128), so that a larger batch or more devices
    do not change the method.
  * `predict` needs a soft assignment, of which the paper has none: q_ik is proportional to exp(10 mu_k . z_i). It is
    largest at the nearest mean; the 10 sets only what `confidence` calls certain.
  * III-E says refinement follows the main training; Table I and the MNIST settings start it within, at `refine_epoch`.
    As released the learning rate has dropped 50 epochs before that; the paper prints one drop, at epoch 350.
  * `sigma` is a variance, as the paper says (IV, Figure 4); the released code takes it for a standard deviation.
  * `dim` 0 is K, also of NAT's targets, of which the paper prints no dimension.
  * `sobel` "released" is the released filter: grey of equal weights, black past the edge, and the differences left less
    right and upper less lower. The paper says no more than the name. True, of earlier versions, has the grey of ITU-R
    601, an edge that goes on past itself, and the opposite sign.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxclust import nets
from jaxclust.ops.assignment import kmeans, transport
from jaxclust.ops.losses import HIGHEST, normalise
from jaxclust.run.errors import ConfigError
from jaxclust.run.schema import Check, option, settings
from jaxclust.types import Batch, Method, Out, Pass, Prediction, Published, Refit, Task, keep_memory

MEANS = ("one_hot", "random", "none")
SHARPNESS = 10.0  # of q

ASSIGNED, FEATURES = "cluster assignment (nearest mean)", "k-means on penultimate features"

# NMI and ACC; the paper has no ARI. Table V has the means of five runs before refinement and after it, Table I the best
# run, and of the two means the one after refinement for MNIST and the one before it for all others. TCC's Table 2 gives
# other numbers for this method (.572 and .700 on CIFAR-10).
_MAIN = [
    Published(f"MMDC, Table {table}", data, clusters, ASSIGNED, *scores, detail=detail)
    for data, clusters, before, after, best in (
        ("mnist", 10, (0.950, 0.981), (0.971, 0.990), (0.973, 0.991)),
        ("cifar10", 10, (0.703, 0.820), (0.715, 0.829), (0.720, 0.843)),
        ("cifar100", 20, (0.418, 0.446), (0.422, 0.446), (0.423, 0.464)),  # the 20 superclasses
        ("stl10", 10, (0.593, 0.694), (0.596, 0.696), (0.609, 0.741)),
        ("imagenet10", 10, (0.719, 0.811), (0.725, 0.815), (0.732, 0.830)),
        ("tiny_imagenet", 200, (0.274, 0.119), (0.254, 0.095), (0.277, 0.121)),
    )
    for table, scores, detail in (
        ("V" if data == "mnist" else "I", before, "mean of 5 runs, not refined"),
        ("I" if data == "mnist" else "V", after, "mean of 5 runs, refined"),
        ("I", best, "best of 5 runs"),
    )
]
PUBLISHED = (
    *_MAIN,
    Published("MMDC, Table IV", "cifar10", 10, FEATURES, 0.428, 0.397, detail="mean"),
    Published("MMDC, Table IV", "cifar100", 20, FEATURES, 0.395, 0.347, detail="mean"),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str
    # policies of the crop that P is found on, and of the one that theta is trained on
    views: tuple = option(check=Check(lambda v: len(v) == 2, "MMDC takes two: centre and augmented crop"))
    rotation_view: str  # policy of each of the rotation task's four crops
    assignment: bool  # the main task
    rotation: bool  # the auxiliary task
    group: int = option(at_least=1)  # images that share out their targets
    # "one_hot", "random" (uniform in [-0.1, 0.1]^d, projected), or "none": t is uniform, as in NAT.
    means: str = option(choices=MEANS)
    dim: int = option(at_least=0)  # d, width of the output; 0 is the number of clusters, whatever `means` is
    sigma: float = option(at_least=0)  # variance of the Gaussians, before projection (a deviation in the released code)
    refine_epoch: int = option(at_least=0)  # the first epoch of refinement; from train.epochs on there is none
    # Whether the network sees the edges of the grey image (Table III), and by which filter.
    sobel: bool | str = option(choices=(False, True, "released"))

    def __post_init__(self):
        if not (self.assignment or self.rotation):
            raise ConfigError("method.assignment and method.rotation are both False; turn one of them on")


def make(config: Mapping[str, Any]) -> Method:
    s: Settings = settings(Settings, config["method"], "method")
    f = nets.backbone(settings(nets.Settings, config["net"], "net"), nets.kaiming_fan_in)
    clusters, epochs = config["clusters"], config["train"]["epochs"]
    images = config["train"]["batch_size"] // config["train"]["accumulate"]  # that a loss sees at once
    d = s.dim or clusters
    clustered = s.assignment and s.means != "none"
    refined = s.assignment and s.refine_epoch < epochs
    if s.assignment and images % s.group:
        raise ConfigError(
            f"method.group is {s.group}, which does not divide train.batch_size / train.accumulate, {images}"
        )
    if s.means == "one_hot" and d != clusters:
        raise ConfigError(f"method.dim is {d}; one-hot means have {clusters} entries, as many as clusters: set it to 0")
    if refined and not clustered:
        raise ConfigError(
            f"method.refine_epoch is {s.refine_epoch}, but without means there are no clusters to refine: "
            f"set it to train.epochs, {epochs}"
        )
    heads = {
        name: nn.Dense(width, kernel_init=nn.initializers.normal(0.01), dtype=f.dtype)
        for name, width, used in (("output", d, s.assignment), ("rotation", 4, s.rotation))
        if used
    }
    mu = means(s.means, clusters, d, config["seed"])

    def init(key, spec):
        key_f, key_t, *keys = jax.random.split(key, 2 + len(heads))
        channels = 2 if s.sobel else spec.channels
        trunk, stats = nets.start(f, key_f, spec.size, channels)
        h = jnp.zeros((1, f.features))
        params = {name: head.init(k, h)["params"] for k, (name, head) in zip(keys, heads.items())}
        memory = {"targets": draw_targets(key_t, spec.examples, d, mu, s.sigma)} if s.assignment else {}
        return {"f": trunk, **params}, stats, memory

    def embed(params, stats, x, train):
        """f32[B, H, W, C] -> h f32[B, D], and the new running statistics."""
        return nets.embed(f, params["f"], stats, sobel(x, s.sobel == "released") if s.sobel else x, train)

    def head(params, name, h):
        return heads[name].apply({"params": params[name]}, h).astype(jnp.float32)

    def output(params, h):
        return normalise(head(params, "output", h))  # z f32[B, d]

    def soft(z):
        return jax.nn.softmax(SHARPNESS * cosine(z, mu))  # q f32[B, K]

    def assignment(params, stats, memory, batch: Batch, key):
        """Eq. 1, over P on centre crops and then over theta on augmented ones."""
        centre, augmented = batch.views
        t = memory["targets"][batch.ids]  # f32[B, d]
        h, _ = embed(params, stats, centre, False)
        z = jax.lax.stop_gradient(output(params, h))
        y = permute(z, t, s.group, mu if s.sigma == 0 else None)

        h, stats = embed(params, stats, augmented, True)
        loss = jnp.mean((output(params, h) - y) ** 2)
        moved = jnp.mean(jnp.any(y != t, axis=-1))
        return loss, Out(stats, y, {"loss": loss, "assignment": loss, "moved": moved, **described(z)})

    def refine(params, stats, memory, batch: Batch, key):
        """Eq. 1 over theta alone."""
        (augmented,) = batch.views
        h, stats = embed(params, stats, augmented, True)
        z = output(params, h)
        loss = jnp.mean((z - memory["targets"][batch.ids]) ** 2)
        return loss, Out(stats, (), {"loss": loss, "assignment": loss, **described(jax.lax.stop_gradient(z))})

    def described(z):
        if not clustered:
            return {}
        return {
            "confidence": jnp.mean(jnp.max(soft(z), axis=-1)),
            "sizes": jnp.bincount(nearest(z, mu), length=clusters).astype(jnp.float32),
        }

    def rotation(params, stats, memory, batch: Batch, key):
        """L_r: all four turns of an image, each of a crop of its own, in one batch."""
        h, stats = embed(params, stats, turned(batch.views), True)
        log_p = jax.nn.log_softmax(head(params, "rotation", h)).reshape(-1, 4, 4)  # of an image, its turn, the answer
        loss = -jnp.mean(jnp.diagonal(log_p, axis1=1, axis2=2))
        accuracy = jnp.mean(jnp.argmax(log_p, axis=-1) == jnp.arange(4))
        return loss, Out(stats, (), {"loss": loss, "rotation": loss, "rotation_accuracy": accuracy})

    def remember(params, memory, ids, y):
        return {"targets": memory["targets"].at[ids].set(y)}

    def outputs(params, stats, memory, x, key):
        h, _ = embed(params, stats, x, False)
        return output(params, h)

    def refit(params, stats, memory, z, key):
        """III-E, with the clusters numbered to agree best with the targets so far."""
        labels = kmeans(key, z, clusters).labels  # i32[N]
        before = nearest(memory["targets"], mu)
        agree = jnp.zeros((clusters, clusters)).at[labels, before].add(1.0)  # images
        number = transport(-agree[None], jnp.arange(clusters)[None])[0]
        return params, stats, {"targets": jnp.take(mu, number[labels], axis=0)}

    def plan(epoch):
        passes = (Pass("rotation"),) if s.rotation else ()
        if not s.assignment:
            return passes
        return (*passes, Pass("refine", refit="targets") if epoch >= s.refine_epoch else Pass("assignment"))

    def predict(params, stats, shown, x):
        h, _ = embed(params, stats, x, False)
        if not s.assignment:
            return Prediction(None, {"backbone": h})
        z = output(params, h)
        return Prediction(soft(z) if clustered else None, {"backbone": h, "output": z})

    centre, augmented = s.views
    tasks = {}
    if s.rotation:
        tasks["rotation"] = Task((s.rotation_view,) * 4, rotation, keep_memory, (("gradient", 4),), separable=True)
    if s.assignment:
        passes = ("predict", 1), ("gradient", 1)
        tasks["assignment"] = Task((centre, augmented), assignment, remember, passes, separable=True)
    if refined:
        tasks["refine"] = Task((augmented,), refine, keep_memory, separable=True)
    reported = {ASSIGNED: "cluster"} if clustered else {}
    return Method(
        init=init,
        tasks=tasks,
        refits={"targets": Refit(centre, outputs, refit)} if refined else {},
        plan=plan,
        predict=predict,
        space="backbone",  # the output has as many numbers as clusters, and says little else
        reported={**reported, FEATURES: "kmeans_backbone"},
    )


def means(kind: str, clusters: int, d: int, seed: int) -> np.ndarray | None:
    """mu, f32[K, d] of unit length, or None; a function of the config, since `predict` sees no memory."""
    if kind == "none":
        return None
    if kind == "one_hot":
        return np.eye(clusters, dtype=np.float32)
    u = np.random.default_rng(seed).uniform(-0.1, 0.1, (clusters, d))
    return (u / np.linalg.norm(u, axis=1, keepdims=True)).astype(np.float32)


def draw_targets(key, n: int, d: int, mu=None, sigma: float = 0.0):
    """Eq. 2: T, f32[n, d], around the means f32[K, d], or anywhere on the sphere where there are none."""
    key_k, key_u = jax.random.split(key)
    u = jax.random.normal(key_u, (n, d))
    if mu is None:
        return normalise(u)
    t = jnp.take(mu, jax.random.randint(key_k, (n,), 0, len(mu)), axis=0)
    return normalise(t + sigma**0.5 * u) if sigma else t


def permute(z, t, group: int, mu=None):
    """Eq. 1 over P: the targets t f32[B, d], shared out anew in each group by the distances to z f32[B, d].

    Where all targets are means f32[K, d], an assignment to K columns with room for each of them is the same.
    """
    d = z.shape[-1]
    z, t = (a.reshape(-1, group, d) for a in (z, t))
    if mu is not None:
        y = jnp.take(mu, transport(distances(z, mu), nearest(t, mu)), axis=0)
    else:
        own = jnp.broadcast_to(jnp.arange(group), t.shape[:2])
        y = jnp.take_along_axis(t, transport(distances(z, t), own)[..., None], axis=1)
    return y.reshape(-1, d)


def turned(views):
    """Four crops of each image f32[B, H, W, C] as one batch f32[4 B, H, W, C], the i-th turned by i quarters."""
    x = jnp.stack([jnp.rot90(x, turns, axes=(1, 2)) for turns, x in enumerate(views)], axis=1)
    return x.reshape(-1, *x.shape[2:])  # an image's turns stay on its device


def cosine(z, mu):
    """f32[..., K] of points z f32[..., d] and mu f32[K, d], all of unit length."""
    return jnp.matmul(z, mu.T, precision=HIGHEST)


def nearest(z, mu):
    """Eq. 3, i32[...]: on the sphere the nearest mean is the one of the largest cosine."""
    return jnp.argmax(cosine(z, mu), axis=-1)


def distances(z, t):
    """Euclidean, f32[..., n, m] of z f32[..., n, d] and t f32[..., m, d]."""
    return jnp.linalg.norm(z[..., :, None, :] - t[..., None, :, :], axis=-1)


def sobel(x, released: bool = False):
    """Sobel's two derivatives of the grey image, f32[B, H, W, C] -> f32[B, H, W, 2]: along the width, the height.

    With `released` grey, border and sign are the released code's, see above.
    """
    weights = (1 / 3, 1 / 3, 1 / 3) if released else (0.299, 0.587, 0.114)  # ITU-R 601
    grey = x @ jnp.asarray(weights) if x.shape[-1] == 3 else x[..., 0]
    g = jnp.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="constant" if released else "edge")
    tall = g[:, :-2] + 2 * g[:, 1:-1] + g[:, 2:]  # f32[B, H, W + 2], smoothed along the height
    wide = g[:, :, :-2] + 2 * g[:, :, 1:-1] + g[:, :, 2:]  # f32[B, H + 2, W]
    edges = jnp.stack([tall[:, :, 2:] - tall[:, :, :-2], wide[:, 2:] - wide[:, :-2]], axis=-1)
    return -edges if released else edges
