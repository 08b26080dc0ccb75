"""Pairs made from prompts, answers, ratings and judges."""
