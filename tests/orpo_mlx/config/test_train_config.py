"""Settings: declared once, and the same through TOML, flags and Python."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo_mlx.cli.settings_options import setting_help
from orpo_mlx.config import TrainConfig, build_config
from orpo_mlx.config.file import load_config, read_settings, with_absolute_paths, write_settings
from orpo_mlx.config.train_config import adapter_scale, iter_settings
from orpo_mlx.errors import ConfigError
from orpo_mlx.text.spelling import nearest_name

SETTINGS = {setting.name: setting for setting in iter_settings()}

NASTY_TEXTS = [
    'quotes " and \' and """',
    "back\\slash",
    "line\nbreak\ttab\r",
    "ünïcödé 日本 🙂",
    "# no comment",
    "nul \x00 del \x7f esc \x1b",
    "",
    " spaces ",
]


def other_value(name: str) -> Any:
    """A legal value of the setting that is not its default."""
    special = {
        "valid_fraction": 0.25, "dropout": 0.5, "weight_decay": 0.01, "final_lr_fraction": 0.3,
        "target_modules": ["q_proj", 'odd"name'], "learning_rate": 1e-05, "warmup": 100.0,
        "scale": 20.0, "alpha": 1.5e-07, "steps": 7, "max_seq_length": 99, "batching": "fixed",
        "label_smoothing": 0.25, "report_to": ["tensorboard"], "peer_timeout": 2.5,
        "map": {"prompt": 'a "b".0', "chosen": "c=d"},
    }  # fmt: skip
    setting = SETTINGS[name]
    if name in special:
        return special[name]
    if setting.kind == "choice":
        return setting.choices[-1]
    if setting.kind == "str":
        return 'C:\\models\\"mine" ü\n'
    return {"int": 3, "float": 0.75}.get(setting.kind, not setting.default)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_survives_the_settings_file(name: str, tmp_path: Path) -> None:
    config = TrainConfig(**{name: other_value(name)})
    file = tmp_path / "run.toml"
    file.write_text(write_settings(config), encoding="utf-8")
    values = read_settings(file)
    assert values[name] == other_value(name)
    assert type(values[name]) is type(getattr(config, name))
    assert TrainConfig(**values).model_dump(exclude={"epochs", "valid_fraction"}) == (
        config.model_dump(exclude={"epochs", "valid_fraction"})
    )


def test_the_defaults_survive_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(write_settings(TrainConfig()), encoding="utf-8")
    assert load_config(file) == TrainConfig()


@pytest.mark.parametrize("text", NASTY_TEXTS)
def test_any_text_survives_the_settings_file(text: str) -> None:
    config = TrainConfig(model=text, target_modules=[text, text])
    assert TrainConfig(**tomllib.loads(write_settings(config))) == config


@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    number=st.floats(0, allow_infinity=False, allow_nan=False),
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
)
def test_whatever_the_values_the_file_reads_back(
    text: str, number: float, names: list[str]
) -> None:
    config = TrainConfig(data=text, lam=number, target_modules=names, valid_fraction=0)
    assert TrainConfig(**tomllib.loads(write_settings(config))) == config


def test_a_name_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(ConfigError, match="--data"):
        write_settings(TrainConfig(data="caf\udce9.jsonl"))


def test_overruled_settings_are_left_out_so_that_the_file_can_be_used_again(
    tmp_path: Path,
) -> None:
    file = tmp_path / "run.toml"
    config = build_config({"steps": 10, "valid_data": "v.jsonl"})
    file.write_text(write_settings(config))
    assert load_config(file) == config


def test_origins_stand_behind_the_values() -> None:
    text = write_settings(TrainConfig(rank=16), {"rank": "--rank"})
    lines = {line.split(" = ")[0]: line for line in text.splitlines() if " = " in line}
    assert lines["rank"].split() == ["rank", "=", "16", "#", "--rank"]
    assert lines["lam"].endswith("# default")
    assert tomllib.loads(text)["rank"] == 16


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("rank = \n", "line 1, column 8"),
        ("rank = 8\nlam == 3\n", "line 2, column 6"),
        ("rank = 8\nmodel = 'a", "line 2, column 11"),
        ("rank = 8\nrank = 9\n", "line 2"),
    ],
)
def test_a_syntax_error_names_file_line_and_column(tmp_path: Path, text: str, place: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_settings(file)
    assert f"{file}, {place}" in caught.value.message


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("lora_rnak", "rank"), ("lerning_rate", "learning_rate"), ("lambda", "lam"),
        ("batch_size", "micro_batch_size"), ("iters", "steps"),
        ("max-seq-length", "max_seq_length"),
    ],
)  # fmt: skip
def test_an_unknown_key_names_file_key_and_nearest_key(
    tmp_path: Path, key: str, nearest: str
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f"{key} = 3\n")
    with pytest.raises(ConfigError) as caught:
        read_settings(file)
    assert caught.value.message == f"{file}: unknown setting {key}; did you mean {nearest}?"


def test_all_unknown_keys_are_reported_together(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("xyzzyx = 1\nrnk = 1\nrank = true\n[adapter]\nscale = 2\n")
    with pytest.raises(ConfigError) as caught:
        read_settings(file)
    for part in ("xyzzyx", "did you mean rank", "rank: found true", "[adapter]", "scale"):
        assert part in caught.value.message


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match=r"none\.toml.*No such file"):
        read_settings(missing)
    with pytest.raises(ConfigError, match="Is a directory"):
        read_settings(tmp_path)
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'rank = 8\nmodel = "caf\xe9"\n')
    with pytest.raises(ConfigError, match=r"latin\.toml, line 2: byte 21 is not UTF-8"):
        read_settings(latin)


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(b"\xef\xbb\xbfrank = 4\n")
    assert read_settings(file) == {"rank": 4}


def test_nothing_is_suggested_for_a_name_like_no_other() -> None:
    assert nearest_name("qqqqqq", list(SETTINGS)) == ""


def test_existing_paths_become_absolute_and_names_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text("")
    given = TrainConfig(
        model="org/name", data="pairs.jsonl", trunk_cache="disk", trunk_cache_dir="to_be_made"
    )
    config = with_absolute_paths(given)
    assert config.data == str(tmp_path / "pairs.jsonl")
    assert config.model == "org/name"
    assert config.trunk_cache_dir == str(tmp_path / "to_be_made")


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_declared_in_full(name: str) -> None:
    setting = SETTINGS[name]
    assert setting.help.endswith(".")
    assert setting.allowed
    assert setting.effects, "what does it do to memory, speed, quality or disk?"
    assert all(0 < len(text) <= 90 for text in setting.effects.values())
    assert not any(text.endswith(".") for text in (*setting.effects.values(), setting.usual))


def test_effects_stand_in_the_help_in_one_order() -> None:
    rank = SETTINGS["rank"]
    assert list(rank.effects) == ["memory", "speed", "quality", "disk"]
    assert rank.effect.startswith("memory: higher needs a little more")
    assert "; quality: higher can learn more" in rank.effect
    assert "disk" not in SETTINGS["lam"].effects
    said = setting_help(SETTINGS["lam"])
    assert " Quality: higher parts chosen and rejected faster and can hurt fluency." in said
    assert " Usual: 0.1 to 0.25 as in the paper" in said


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("learning_rate", "abc", "a number above 1e-12"),
        ("learning_rate", "-1", "a number above 1e-12"),
        ("learning_rate", "nan", "a number above 1e-12"),
        ("learning_rate", "0", "a number above 1e-12"),
        ("learning_rate", "5e-053", "a number above 1e-12"),
        ("micro_batch_size", "0", "at least 1"),
        ("rank", "0", "at least 1"),
        ("rank", "1.5", "a whole number"),
        ("max_seq_length", "1", "at least 8"),
        ("preference", "dpo", "odds_ratio, probability_ratio, none"),
        ("scale", "1e7", "at most"),  # an adapter that no file of its could be read again
        ("alpha", "1e7", "at most"),
    ],
)
def test_a_refused_value_names_origin_value_and_range(name: str, value: str, limit: str) -> None:
    flag = SETTINGS[name].flag
    with pytest.raises(ConfigError) as caught:
        build_config({name: value}, {name: flag})
    assert flag in caught.value.message
    assert repr(value) in caught.value.message
    assert limit in caught.value.message


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"steps": 10, "epochs": 2}, ("--steps 10", "--epochs 2", "only one")),
        ({"scale": 2, "alpha": 16}, ("--scale 2", "--alpha 16", "only one")),
        ({"rslora": True}, ("--rslora", "--alpha")),
        ({"lam": 0, "nll_weight": 0}, ("nothing would be trained",)),
        ({"beta": 0.1}, ("--beta", "does nothing with --objective orpo", "dpo, cpo, simpo")),
        ({"objective": "dpo", "lam": 0.3}, ("--lam", "does nothing with --objective dpo", "orpo")),
        (
            {"objective": "dpo", "dpo_loss": "ipo", "label_smoothing": 0.1},
            ("--label-smoothing", "--dpo-loss ipo"),
        ),
        ({"objective": "dpo", "ipo_length": "summed"}, ("--ipo-length", "--dpo-loss ipo")),
        ({"objective": "dpo", "reference": "start"}, ("--reference start", "--init-adapter")),
        ({"valid_data": "v", "valid_fraction": 0.1}, ("only one",)),
        ({"early_stop": 2, "eval_every": 0}, ("--early-stop", "--eval-every")),
        ({"num_layers": 0}, ("--num-layers 0", "adapts no block")),
        ({"trunk_cache": "memory", "num_layers": -1}, ("--trunk-cache memory", "--num-layers -1")),
        ({"trunk_cache": "disk", "scoring": "fork"}, ("--trunk-cache disk", "--scoring fork")),
        ({"keep_best": True, "eval_every": 5, "valid_fraction": 0}, ("validation pairs",)),
    ],
)
def test_contradictions_are_refused(values: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(values)
    for part in parts:
        assert part in caught.value.message


@pytest.mark.parametrize(
    "values",
    [
        {"trunk_cache": "memory", "num_layers": 4},
        # Of these the layers are not known before the model or the adapter is read.
        {"trunk_cache": "memory", "num_layers": -1, "target_modules": ["model.layers.3.mlp.up"]},
        {"trunk_cache": "memory", "num_layers": -1, "init_adapter": "here"},
        {"num_layers": 0, "init_adapter": "here"},
    ],
)
def test_what_may_work_is_not_refused(values: dict[str, Any]) -> None:
    assert build_config(values)


def test_a_refused_number_is_written_right() -> None:
    with pytest.raises(ConfigError, match=r"write 0\.25"):
        build_config({"lam": "0,25"})


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ({}, 2.0),
        ({"scale": 20.0}, 20.0),
        ({"alpha": 16, "rank": 8}, 2.0),
        ({"alpha": 16, "rank": 16, "rslora": True}, 4.0),
    ],
)
def test_alpha_becomes_scale_in_one_place(values: dict[str, Any], scale: float) -> None:
    assert adapter_scale(TrainConfig(**values)) == scale


# Choices


@pytest.mark.parametrize("value", [True, False, 1, "true", "yes", None])
def test_grad_checkpoint_takes_its_three_words_only(value: Any) -> None:
    with pytest.raises(ConfigError, match="needs one of auto, off, on"):
        build_config({"grad_checkpoint": value})


@pytest.mark.parametrize("scoring", ["shared", "fork"])
def test_scoring_that_keeps_state_is_refused_with_recomputing(scoring: str) -> None:
    with pytest.raises(ConfigError, match=f"--scoring {scoring}: not with --grad-checkpoint on"):
        build_config({"scoring": scoring, "grad_checkpoint": "on"})
    assert build_config({"scoring": scoring}).grad_checkpoint == "auto"


def test_a_share_of_the_blocks_needs_recomputing_switched_on() -> None:
    with pytest.raises(ConfigError, match="--grad-checkpoint-every 2: needs --grad-checkpoint on"):
        build_config({"grad_checkpoint_every": 2})
    both = build_config({"grad_checkpoint_every": 2, "grad_checkpoint": "on"})
    assert both.grad_checkpoint_every == 2


def test_a_learning_rate_that_is_not_set_goes_with_the_objective(tmp_path: Path):
    known = {"orpo": 5e-5, "sft": 1e-4, "dpo": 1e-5, "cpo": 1e-5, "simpo": 1e-5, "kto": 1e-5,
             "reward": 1e-4}  # fmt: skip
    assert {name: TrainConfig(objective=name).learning_rate for name in known} == known
    assert TrainConfig().learning_rate == 5e-5
    # A file names every setting, so that what was set stays what it is.
    file = tmp_path / "run.toml"
    file.write_text(write_settings(TrainConfig(objective="dpo", learning_rate=5e-5)))
    assert load_config(file).learning_rate == 5e-5
    assert build_config({"objective": "dpo", "learning_rate": "5e-5"}).learning_rate == 5e-5
