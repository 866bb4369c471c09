"""Live panels: widgets in JupyterLab, and the same panels without a kernel in the built pages."""

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
    "SettingPanel",
    "StepPanel",
    "TheoremPanel",
    "ValuePanel",
    "ball_member",
    "draw",
    "permutation",
]
