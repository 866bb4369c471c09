"""Live panels: widgets in JupyterLab, and the same panels without a kernel in the built pages."""

from .ascent import ScalePanel, SpherePanel
from .weights import ball_member, draw, permutation
from .widgets import (
    DifferencePanel,
    FlipsPanel,
    GradientPanel,
    PlaygroundPanel,
    ReaderPanel,
    SettingPanel,
    StepPanel,
    TheoremPanel,
    ValuePanel,
)

__all__ = [
    "DifferencePanel",
    "FlipsPanel",
    "GradientPanel",
    "PlaygroundPanel",
    "ReaderPanel",
    "ScalePanel",
    "SettingPanel",
    "SpherePanel",
    "StepPanel",
    "TheoremPanel",
    "TrainingPanel",
    "ValuePanel",
    "ball_member",
    "draw",
    "permutation",
]


def __getattr__(name):
    """``TrainingPanel``, imported with the experiments and matplotlib when it is first asked for."""
    if name == "TrainingPanel":
        from .lab import TrainingPanel

        return TrainingPanel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
