"""Live panels: widgets in JupyterLab, and the same panels without a kernel in the built pages."""

from .weights import ball_member, draw
from .widgets import SettingPanel, StepPanel

__all__ = ["SettingPanel", "StepPanel", "ball_member", "draw"]
