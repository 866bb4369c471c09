"""Contender: torch.func. The members' parameters are stacked, and vmap runs the one network's code over them."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, stack_module_state, vmap
from torch.nn.functional import softplus
from torch_module import modules

from lazy_helpers import TwoLayerNet

NAME = "torch.func (vmap over stacked parameters)"


def prepare_sgd(net: TwoLayerNet, X: Tensor, y: Tensor, batches: Tensor, lr: float) -> Callable[[], Tensor]:
    """SGD on the logistic loss, one step a row of ``batches (steps, K, B)``; the callable returns W ``(K, m, d)``."""
    value, start, frozen = _stack(net)
    batches = batches.to(X.device)

    def loss(parameters, frozen, x, y):
        return softplus(-y * value(parameters, frozen, x)).mean()

    gradients = vmap(grad(loss))

    def run() -> Tensor:
        parameters = {name: parameter.clone() for name, parameter in start.items()}
        for batch in batches:
            g = gradients(parameters, frozen, X[batch], y[batch])
            for name, parameter in parameters.items():
                parameter.sub_(g[name], alpha=lr)
        return parameters["W"]

    return run


def prepare_pgd(net: TwoLayerNet, x: Tensor, y: Tensor, eps: float, steps: int) -> Callable[[], Tensor]:
    """l2 PGD with the normalised gradient of the logistic loss at points ``(n, d)``; returns delta ``(K, n, d)``."""
    value, parameters, frozen = _stack(net)
    alpha, tiny = 2.5 * eps / steps, torch.finfo(x.dtype).tiny

    def loss(delta, parameters, frozen):
        return softplus(-y * value(parameters, frozen, x + delta)).sum()  # the sum's gradient is each point's own

    gradients = vmap(grad(loss))

    def run() -> Tensor:
        delta = x.new_zeros(len(net.W), *x.shape)
        for _ in range(steps):
            g = gradients(delta, parameters, frozen)
            delta.addcdiv_(g, g.norm(dim=-1, keepdim=True).clamp_(min=tiny), value=alpha)
            delta.mul_(eps / delta.norm(dim=-1, keepdim=True).clamp_(min=eps))
        return delta

    return run


def prepare_flips(net: TwoLayerNet, x: Tensor, step: float = 1e-3, end: float = 5.0) -> Callable[[], Tensor]:
    """||delta|| of the first flip on the grid of ``step``, NaN where there is none up to ``end``; returns ``(K, n)``.

    All members and points move one step at a time; a point that has flipped in every member moves no further.
    """
    value, parameters, frozen = _stack(net)
    values = vmap(value)

    def total(x, parameters, frozen):
        f = value(parameters, frozen, x)
        return f.sum(), f

    rays = vmap(grad_and_value(total, has_aux=True), in_dims=(None, 0, 0))

    def run() -> Tensor:
        g, (_, before) = rays(x, parameters, frozen)  # (K, n, d), (K, n)
        away = -before.sign().unsqueeze(-1) * g / g.norm(dim=-1, keepdim=True).clamp_(min=torch.finfo(g.dtype).tiny)
        norm = torch.full_like(before, math.nan)
        moving, start, found = torch.arange(len(x), device=x.device), x, torch.zeros_like(before, dtype=torch.bool)
        for count in range(1, round(end / step) + 1):
            crossed = values(parameters, frozen, torch.add(start, away, alpha=count * step)) * before < 0
            new = (crossed & ~found).nonzero(as_tuple=True)
            if not len(new[0]):
                continue
            norm[new[0], moving[new[1]]] = count * step
            found |= crossed
            rest = ~found.all(0)
            if not rest.any():
                break
            if not rest.all():
                moving, start, away = moving[rest], start[rest], away[:, rest]
                before, found = before[:, rest], found[:, rest]
        return norm

    return run


def _stack(net: TwoLayerNet):
    """``value(parameters, frozen, x)`` of one network, and the members' stacked parameters and buffers."""
    members = modules(net)
    parameters, frozen = stack_module_state(members)
    parameters = {name: parameter.detach() for name, parameter in parameters.items()}
    skeleton = copy.deepcopy(members[0]).to("meta")  # its code, without weights of its own
    return lambda *state: functional_call(skeleton, state[:2], state[2:]), parameters, frozen
