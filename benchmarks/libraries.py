"""Contenders: the l2 PGD of foolbox 3.3 and of the Adversarial Robustness Toolbox (ART) 1.20, as a user would call them.

Both attack a classifier's cross-entropy, one network at a time. The binary network becomes one with the two logits
(-f/2, +f/2), whose cross-entropy is log(1 + exp(-y f)). The libraries are imported when a function is called.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch_module import Module, modules

from lazy_helpers import TwoLayerNet

NAME_FOOLBOX = "foolbox"
NAME_ART = "Adversarial Robustness Toolbox"
# As fast as one batch of all points (0.73 s against 0.72 s at m = 1000, d = 784, n = 512, 3 members, 10 steps; ART's
# own default of 32: 1.03 s), and its memory does not grow with the points.
ART_BATCH = 512


class TwoLogits(torch.nn.Module):
    """The classifier with logits (-f/2, +f/2): ``(n, d)`` to ``(n, 2)``. Class 0 is y = -1, class 1 is y = +1."""

    def __init__(self, model: Module):
        super().__init__()
        # Neither library freezes the weights: without this each step computes their gradient too, and drops it.
        self.model = model.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        f = self.model(x)
        return torch.stack([-f, f], dim=-1) / 2


def prepare_pgd_foolbox(net: TwoLayerNet, x: Tensor, y: Tensor, eps: float, steps: int) -> Callable[[], Tensor]:
    """l2 PGD at points ``(n, d)``; the callable returns delta ``(K, n, d)``.

    foolbox normalises a gradient only down to a norm of 1e-12: beyond a margin y f of about 27 its steps get shorter.
    """
    import foolbox

    bounds = (-math.inf, math.inf)  # no box
    models = [foolbox.PyTorchModel(TwoLogits(m).eval(), bounds=bounds, device=x.device) for m in modules(net)]
    # foolbox's own step is eps / 40 whatever the number of steps.
    attack = foolbox.attacks.L2ProjectedGradientDescentAttack(
        abs_stepsize=2.5 * eps / steps, steps=steps, random_start=False
    )
    labels = (y > 0).long()
    return lambda: torch.stack([attack(model, x, labels, epsilons=eps)[0] - x for model in models])


def prepare_pgd_art(net: TwoLayerNet, x: Tensor, y: Tensor, eps: float, steps: int) -> Callable[[], Tensor]:
    """l2 PGD at points ``(n, d)``; the callable returns delta ``(K, n, d)``. ART computes in float32."""
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    classifiers = [
        PyTorchClassifier(
            model=TwoLogits(model),
            # The sum, not the mean: 1/n of a point's gradient would underflow n times as soon.
            loss=torch.nn.CrossEntropyLoss(reduction="sum"),
            input_shape=(net.d,),
            nb_classes=2,
            clip_values=None,  # no box
            device_type="gpu" if x.is_cuda else "cpu",
        )
        for model in modules(net)
    ]
    attacks = [
        ProjectedGradientDescentPyTorch(
            classifier, norm=2, eps=eps, eps_step=2.5 * eps / steps, max_iter=steps, num_random_init=0,
            batch_size=ART_BATCH, verbose=False,
        )
        for classifier in classifiers
    ]  # fmt: skip
    points, labels = x.float().cpu().numpy(), (y > 0).long().cpu().numpy()
    return lambda: torch.from_numpy(np.stack([attack.generate(points, labels) - points for attack in attacks])).to(x)
