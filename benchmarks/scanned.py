"""Contender: JAX. vmap over members or points, ``jax.lax.scan`` over the steps, compiled before it is timed; float32.

JAX is imported when a function is called, so that the module can be read without it. Everything runs on JAX's default
device, and JAX keeps its own pool of threads: neither ``OMP_NUM_THREADS`` nor ``torch.set_num_threads`` limits it.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lazy_helpers import TwoLayerNet

NAME = "JAX (vmap, scan, jit)"
BLOCK = 64  # points of the search at a time; 32 to 512 differ by a tenth


def prepare_sgd(net: TwoLayerNet, X: Tensor, y: Tensor, batches: Tensor, lr: float) -> Callable[[], Tensor]:
    """SGD on the logistic loss, one step a row of ``batches (steps, K, B)``; the callable returns W ``(K, m, d)``."""
    import jax

    def loss(parameters, output, x, y):
        return jax.nn.softplus(-y * _value(parameters, output, x)).mean()

    gradients = jax.vmap(jax.grad(loss))

    def train(parameters, output, X, y, batches):
        def step(parameters, batch):
            g = gradients(parameters, output, X[batch], y[batch])
            return jax.tree.map(lambda p, g: p - lr * g, parameters, g), None

        return jax.lax.scan(step, parameters, batches)[0]["W"]

    return _compile(train, *_numpy(net), _float32(X), _float32(y), batches.cpu().numpy().astype(np.int32))


def prepare_pgd(net: TwoLayerNet, x: Tensor, y: Tensor, eps: float, steps: int) -> Callable[[], Tensor]:
    """l2 PGD with the normalised gradient of the logistic loss at points ``(n, d)``; returns delta ``(K, n, d)``."""
    import jax
    import jax.numpy as jnp

    alpha, tiny = 2.5 * eps / steps, np.finfo(np.float32).tiny

    def loss(delta, parameters, output, x, y):
        return jax.nn.softplus(-y * _value(parameters, output, x + delta)).sum()

    def attack(parameters, output, x, y):  # one network
        def step(delta, _):
            g = jax.grad(loss)(delta, parameters, output, x, y)
            delta += alpha * g / jnp.maximum(jnp.linalg.norm(g, axis=-1, keepdims=True), tiny)
            return delta * eps / jnp.maximum(jnp.linalg.norm(delta, axis=-1, keepdims=True), eps), None

        return jax.lax.scan(step, jnp.zeros_like(x), length=steps)[0]

    return _compile(jax.vmap(attack, in_axes=(0, 0, None, None)), *_numpy(net), _float32(x), _float32(y))


def prepare_flips(net: TwoLayerNet, x: Tensor, step: float = 1e-3, end: float = 5.0) -> Callable[[], Tensor]:
    """||delta|| of the first flip on the grid of ``step``, NaN where there is none up to ``end``; returns ``(K, n)``.

    Written for one point, whose ``while_loop`` ends at its flip; ``lax.map`` runs it over ``BLOCK`` points at a time,
    so that a late flip keeps its own block going, not every point.
    """
    import jax
    import jax.numpy as jnp

    tiny, last = np.finfo(np.float32).tiny, round(end / step)

    def search(parameters, output, x):  # one network, one point
        before, g = jax.value_and_grad(_value, argnums=2)(parameters, output, x)
        away = -jnp.sign(before) * g / jnp.maximum(jnp.linalg.norm(g), tiny)

        def crossed(count):
            return _value(parameters, output, x + count * step * away) * before < 0

        def unfinished(state):
            count, found = state
            return (count < last) & ~found

        def advance(state):
            count, _ = state
            return count + 1, crossed(count + 1)

        count, found = jax.lax.while_loop(unfinished, advance, (0, False))
        return jnp.where(found, count * step, math.nan)

    def run(parameters, output, x):
        def blocks(member):
            return jax.lax.map(lambda point: search(*member, point), x, batch_size=BLOCK)

        # One member after the other: vmap over them makes each step a batched product, half as fast on a CPU, and a
        # block would wait for its slowest member.
        return jax.lax.map(blocks, (parameters, output))

    return _compile(run, *_numpy(net), _float32(x))


def _value(parameters, output, x):
    """f of one network at points ``(n, d)``."""
    import jax

    z = x @ parameters["W"].T
    if "b" in parameters:
        z += parameters["b"]
    return jax.nn.relu(z) @ output


def _compile(function, *arguments) -> Callable[[], Tensor]:
    """The function compiled for these arguments, which are put on the device, as a callable that returns a tensor.

    No argument is donated: every run starts from the same weights, and the scan updates its own carry in place.
    """
    import jax

    arguments = jax.device_put(arguments)
    with jax.default_matmul_precision("highest"):
        compiled = jax.jit(function).lower(*arguments).compile()
    return lambda: torch.from_dlpack(compiled(*arguments).block_until_ready())


def _numpy(net: TwoLayerNet):
    """The members' parameters and output layers, float32."""
    parameters = {"W": _float32(net.W)} | ({} if net.b is None else {"b": _float32(net.b)})
    return parameters, _float32(net.a) / np.float32(math.sqrt(net.m))


def _float32(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy().astype(np.float32)
