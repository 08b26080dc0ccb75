"""The four steps to a run: their order, and what can be done in which; pure."""

from __future__ import annotations

from tui.new_run.draft import Draft

STEPS = ("Model", "Data", "Settings", "Review")
MODEL, DATA, FORM, REVIEW = range(4)

_OFFERED: dict[str, tuple[int, ...]] = {
    "next": (MODEL, DATA, FORM),
    "browse": (MODEL, DATA),
    "source": (MODEL, DATA),
    "map": (DATA,),
    "reset": (FORM,),
    "preset": (FORM, REVIEW),
    "start": (REVIEW,),
    "sweep": (REVIEW,),
    "peers": (REVIEW,),
    "copy_command": (FORM, REVIEW),
}
"""Actions that make sense in some steps only."""


def is_offered(action: str, step: int) -> bool:
    """Tell whether an action makes sense in a step.

    >>> is_offered("start", REVIEW), is_offered("start", MODEL), is_offered("back", MODEL)
    (True, False, True)
    """
    return step in _OFFERED.get(action, (step,))


def first_open_step(draft: Draft) -> int:
    """Return the step where one goes on with a draft.

    >>> first_open_step(Draft()), first_open_step(Draft({"model": "m", "data": "d"}))
    (0, 2)
    """
    return MODEL if not draft.model else DATA if not draft.data else FORM
