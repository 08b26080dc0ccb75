"""What this trainer is worth on a machine, in one report: `orpo-mlx bench`.

The parent (`suite`) starts workers, watches the clock and writes; it never loads mlx. Whatever
computes is a process of its own (`worker`), so that the crash, the hang or the environment of one
reaches no other. A new measurement is a function that yields rows, a line in `worker`, one in
`parts`, and a table in `report`.
"""
