"""Proofs on a user's own model and rows: numbers, gradients, ways of scoring, resumes.

`reference` computes in float64 what the trainer computes in float32; an objective has its twin
there.
"""
