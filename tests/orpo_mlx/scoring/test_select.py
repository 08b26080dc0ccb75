"""The table of ways, and what is said of them where MLX may not be loaded."""

from typing import get_args

from orpo_mlx.config.optimisation import CANNOT_KEEP, CANNOT_RECOMPUTE, OptimisationSettings
from orpo_mlx.scoring.select import WAYS


def test_settings_name_each_way_and_agree_on_what_it_cannot():
    wanted = get_args(OptimisationSettings.model_fields["scoring"].annotation)
    assert wanted == ("auto", *WAYS)
    assert [name for name, way in WAYS.items() if not way.can_recompute] == [*CANNOT_RECOMPUTE]
    assert [name for name, way in WAYS.items() if not way.can_keep] == [*CANNOT_KEEP]


def test_ways_whose_outputs_can_be_kept_say_where_their_inputs_are():
    assert all(way.can_keep == (way.passes > 0) for way in WAYS.values())
