"""Which answers are better: two sides answer held-out prompts, a person or a model compares blind.

`contest` brings both answers to each prompt, `ledger` keeps answers and verdicts in a journal, so
that nothing is made or asked twice; `tally` counts, `by_model` asks a judge of `local` or
`endpoint` in the words of `instruction`. A new kind of judge is a `by_model.ModelJudge`.
"""
