"""Adversarial robustness in the lazy regime: the training core, the attacks and the bounds of the book."""

from .adversarial import Adversarial, train_adversarial
from .attack import Flip, pgd, smallest_flip
from .data import BinaryData, load_binary, unit_sphere
from .lazy import LazyBall
from .network import TwoLayerNet
from .robustness import bracket, certified_radius
from .strongest import minimal_perturbation, strongest_attack
from .train import Exit, logistic_loss, train_sgd

__all__ = [
    "Adversarial",
    "BinaryData",
    "Exit",
    "Flip",
    "LazyBall",
    "TwoLayerNet",
    "bracket",
    "certified_radius",
    "load_binary",
    "logistic_loss",
    "minimal_perturbation",
    "pgd",
    "smallest_flip",
    "strongest_attack",
    "train_adversarial",
    "train_sgd",
    "unit_sphere",
]
