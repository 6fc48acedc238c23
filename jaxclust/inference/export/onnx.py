"""A function of images as ONNX, by jax2onnx; what that cannot convert, or ONNX Runtime not run, is said otherwise.

reduce_window_max      jax2onnx pools all four axes, and ONNX Runtime at most three: padding, and flax's max pool
bitcast_convert_type   ONNX has it only from opset 26 on; a view packs colours with it, see `views.operations`
concatenate            jax2onnx loses the batch's size in parts that are empty, as padding makes them
constants              are computed here, not in every call: the taps of a view's resize among them
platform_index         a file for anywhere takes what is meant for platforms that are not named, and jax2onnx loses
                       what a branch takes from outside
"""

import functools
import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxclust.run.errors import ConfigError, RunError

BITS = 0x4B000000  # of the float 2**23


def installed() -> bool:
    return importlib.util.find_spec("jax2onnx") is not None


def check_installed() -> None:
    """Raises a ConfigError where jax2onnx is not installed."""
    if not installed():
        raise ConfigError(
            "ONNX needs jax2onnx, which is not installed; install it with pip install 'jaxclust[onnx]', or leave "
            "onnx out of the formats"
        )


def convert(fn: Callable[..., tuple], images: jax.ShapeDtypeStruct, names: tuple[str, ...]) -> bytes:
    """`fn` as a serialized ONNX model of one input, `images`.

    Args:
      fn: images -> a tuple of arrays.
      images: their shape, in which the batch may be symbolic, and type.
      names: of the outputs.

    Raises:
      ConfigError: jax2onnx is not installed.
      RunError: it cannot convert `fn`.
    """
    check_installed()
    from jax2onnx import to_onnx

    program = jax.make_jaxpr(fn)(images)
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it tells of shapes that it leaves to be inferred
    try:
        model = to_onnx(
            lambda x: _evaluate(program.jaxpr, program.consts, [x]),
            [images],
            model_name="predictor",
            input_names=["images"],
            output_names=list(names),
        )
    except Exception as e:  # whatever it says of what it does not know
        what = (str(e) or type(e).__name__).strip().splitlines()[0][:200]
        raise RunError(f"jax2onnx cannot convert this network ({what}); leave onnx out of the formats") from e
    return model.SerializeToString(deterministic=True)


def _evaluate(jaxpr: Jaxpr, consts: list[Any], args: list[Any]) -> list[Any]:
    """What `jaxpr` computes, all inner calls in line and the equations of `RULES` by those."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args)))

    def read(atom):
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        inner = eqn.params.get("call_jaxpr", eqn.params.get("jaxpr"))
        if eqn.primitive.name == "cond" and not isinstance(inputs[0], jax.core.Tracer):
            inner, inputs = eqn.params["branches"][int(inputs[0])], inputs[1:]
        if eqn.primitive.name == "platform_index":
            outputs = _anywhere(**eqn.params)
        elif inner is not None:
            inner = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
            outputs = _evaluate(inner.jaxpr, inner.consts, inputs)
        elif not any(isinstance(x, jax.core.Tracer) for x in inputs):
            with jax.ensure_compile_time_eval():
                outputs = eqn.primitive.bind(*inputs, **eqn.params)
        else:
            outputs = RULES.get(eqn.primitive.name, eqn.primitive.bind)(*inputs, **eqn.params)
        values |= zip(eqn.outvars, outputs if isinstance(outputs, list | tuple) else [outputs])
    return [read(atom) for atom in jaxpr.outvars]


def _anywhere(platforms: tuple[tuple[str, ...] | None, ...]) -> int:
    """Which of `lax.platform_dependent`'s branches is for any platform; the first where none is."""
    return platforms.index(None) if None in platforms else 0


def _max_pool(x, *, window_dimensions, window_strides, padding, **_):
    for axis in (
        1,
        2,
    ):  # a window that reaches past the edge holds the edge itself, so that the edge again adds nothing
        low, high = padding[axis]
        first, last = (jax.lax.slice_in_dim(x, at, at + 1, axis=axis) for at in (0, x.shape[axis] - 1))
        x = jnp.concatenate([*[first] * low, x, *[last] * high], axis)
    return nn.max_pool(x, window_shape=window_dimensions[1:3], strides=window_strides[1:3], padding="VALID")


def _bitcast(x, **_):
    """The bits of floats from 2**23 to 2**24, whose last ones are an integer's."""
    return (x - 2.0**23).astype(jnp.int32) + BITS


def _concatenate(*parts, dimension):
    return jnp.concatenate([x for x in parts if 0 not in x.shape], dimension)


def _shift(x, by, *, left):
    """Of integers that are not negative."""
    return (jax.lax.mul if left else jax.lax.div)(x, 2 ** np.asarray(by))


RULES = {
    "reduce_window_max": _max_pool,
    "bitcast_convert_type": _bitcast,
    "concatenate": _concatenate,
    "shift_left": functools.partial(_shift, left=True),
    "shift_right_arithmetic": functools.partial(_shift, left=False),
    "optimization_barrier": lambda *x: x,
}
