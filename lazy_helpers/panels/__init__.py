"""Live panels: widgets in JupyterLab, and the same panels without a kernel in the built pages."""

from .weights import ball_member, draw
from .widgets import FlipsPanel, GradientPanel, SettingPanel, StepPanel, ValuePanel

__all__ = ["FlipsPanel", "GradientPanel", "SettingPanel", "StepPanel", "ValuePanel", "ball_member", "draw"]
