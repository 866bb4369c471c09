"""Adversarial robustness in the lazy regime: the training core and the attacks of the book."""

from .attack import Flip, pgd, smallest_flip
from .data import BinaryData, load_binary, unit_sphere
from .lazy import LazyBall
from .network import TwoLayerNet
from .train import Exit, logistic_loss, train_sgd

__all__ = [
    "BinaryData",
    "Exit",
    "Flip",
    "LazyBall",
    "TwoLayerNet",
    "load_binary",
    "logistic_loss",
    "pgd",
    "smallest_flip",
    "train_sgd",
    "unit_sphere",
]
