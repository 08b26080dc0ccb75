"""A run's events in the tables and charts of other programs: TensorBoard, W&B, trackio.

A tracker reads events.jsonl, like everyone else, in a process of its own: beside a trainer
(`--report-to`) or afterwards (`orpo-mlx log`). Whatever becomes of it, the run does not notice. To
add one: a module with a `Tracker`, a row in `table.py`, an extra in pyproject.toml.
"""
