"""How good a model is, and how far it is from another.

What is computed from arrays alone (`interval`, `verdict`, `score_table`) knows NumPy only. The way
of `orpo-mlx evaluate`: `held_out` pairs, a `subject` with adapters to wear, its `scores`, a
`judgement`; `drift` beside it, `report` to look at, `at_end` after a training. A new measure
is a row in `score_table.measures`.
"""
