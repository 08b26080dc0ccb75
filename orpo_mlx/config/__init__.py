"""The settings of a run: declared once, a module per group, checked together.

Flag, file key, help, form field and docs follow from a declaration. To add a setting: a
`setting(...)` in the module of its group (help, unit, effect, bounds); conflicts of several go into
`train_config.conflicts`; `make docs` writes the table of docs/settings.md anew.
"""

from __future__ import annotations

from orpo_mlx.config.train_config import TrainConfig, build_config

__all__ = ["TrainConfig", "build_config"]
