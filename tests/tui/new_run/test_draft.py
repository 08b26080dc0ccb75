"""A planned run by value: layers of settings, problems, the command, what is kept on disk."""

from __future__ import annotations

import shlex

import pytest

from orpo_mlx import demo
from orpo_mlx.cli.commands.fit import parse_fit
from orpo_mlx.cli.commands.train import parse_train
from orpo_mlx.config import build_config
from tui.new_run.draft import SETTINGS, Draft, draft_like, load_draft, save_draft, value_text
from tui.new_run.presets import BASIC, PRESETS


@pytest.fixture
def planned(tmp_path) -> Draft:
    """A draft with a model and data that are names only."""
    return Draft().with_values({"model": "org/model", "data": "org/pairs"})


def test_nothing_chosen_is_said_in_words():
    assert Draft().missing() == "Choose a model and data first."
    assert Draft({"model": "m"}).missing() == "Choose data first."


def test_what_the_user_chose_lies_over_the_preset_and_goes_away_when_emptied(planned):
    draft = planned.with_preset("thorough").with_value("rank", "4")
    assert (draft.get("rank"), draft.get("num_layers"), draft.get("seed")) == ("4", -1, 0)
    assert draft.with_value("rank", "").get("rank") == 16


def test_a_value_equal_to_the_preset_is_not_counted_as_chosen(planned):
    assert "rank" not in planned.with_value("rank", "8").own
    assert "learning_rate" not in planned.with_value("learning_rate", "0.00005").own


def test_steps_replace_the_presets_epochs_but_not_the_users(planned):
    draft = planned.with_preset("thorough").with_value("steps", "20")
    assert "epochs" not in draft.values
    assert draft.problems() == []
    both = draft.with_value("epochs", "3")
    assert [problem.names for problem in both.problems()] == [("steps", "epochs")]


def test_a_wrong_value_is_named_at_its_setting_and_a_conflict_at_both(planned):
    wrong = planned.with_value("rank", "many").problems()
    assert [problem.names for problem in wrong] == [("rank",)]
    assert "needs a whole number" in wrong[0].text
    conflict = planned.with_value("rslora", "true").problems()
    assert [problem.names for problem in conflict] == [("rslora", "alpha")]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_valid_run_and_its_command_says_the_same(planned, preset):
    draft = planned.with_preset(preset).with_values({"dora": "true", "target_modules": "q_proj"})
    words = shlex.split(draft.command())
    assert words[:2] == ["orpo-mlx", "train"]
    assert parse_train(words[2:]).config == draft.config()


@pytest.mark.parametrize("own", [{}, demo.SETTINGS, {"steps": 7, "lam": 0.2, "eval_every": 3}])
@pytest.mark.parametrize("model", [str(demo.model_path()), "org/model"])
def test_a_run_like_another_has_all_its_settings(model, own):
    config = build_config({"model": model, "data": "org/pairs", **own}, {})
    assert draft_like(config).config() == config


@pytest.mark.parametrize("text", ["--help", "-x", "a b", 'it\'s "so"', "$HOME;ls", "~/a b.jsonl"])
def test_any_text_comes_back_from_the_command(planned, text):
    draft = planned.with_values({"data": text, "run_dir": text})
    assert parse_train(shlex.split(draft.command())[2:]).config == draft.config()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lam", " 0.2 ", 0.2), ("learning_rate", "1e-5", 1e-5), ("seed", "007", 7),
        ("num_layers", "-1", -1), ("target_modules", "q_proj, v_proj", ["q_proj", "v_proj"]),
        ("epochs", ".5", 0.5), ("warmup", "1e2", 100.0),
    ],
)  # fmt: skip
def test_numbers_may_be_written_as_one_likes(planned, name, text, value):
    draft = planned.with_value(name, text)
    assert getattr(draft.config(), name) == value
    assert parse_train(shlex.split(draft.command())[2:]).config == draft.config()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("lam", "0,1", "found '0,1', needs a number at least 0; write 0.1"),
        ("learning_rate", "5,0e-5", "write 5.0e-5"),
        ("warmup", "5 %", "found '5 %', needs a number at least 0; write 0.05"),
        ("rank", "1,000", "found '1,000', needs a whole number at least 1 and at most 4096"),
        ("rank", "16.5", "found '16.5', needs a whole number"),
        ("rank", "-3", "found '-3', needs a whole number at least 1"),
        ("lam", "1e999", "found '1e999', needs a number at least 0"),
        ("lam", "nan", "found 'nan', needs a number at least 0"),
        ("steps", "1" * 5000, "needs a whole number at least 1 and at most"),
        ("micro_batch_size", "1000000000", "at most 1024"),
        ("max_seq_length", "9" * 30, "at most 1,048,576"),
    ],
)
def test_a_wrong_number_is_told_from_a_right_one(planned, name, text, said):
    (problem,) = planned.with_value(name, text).problems()
    assert problem.names == (name,)
    assert said in problem.text
    assert len(problem.text) < 200


def test_blanks_alone_are_no_value(planned):
    assert planned.with_value("rank", "   ").own == planned.own


def test_a_switch_can_be_turned_off_again(planned):
    draft = planned.with_preset("thorough").with_value("keep_best", "false")
    assert draft.problems() == []
    assert draft.config().keep_best is False


def test_the_questions_are_commands_that_parse(planned):
    draft = planned.with_value("max_seq_length", "256")
    assert parse_fit(draft.fit_words()).config == draft.config()
    alone = parse_fit(draft.fit_words("org/other")).config
    assert (alone.model, alone.data, alone.max_seq_length) == ("org/other", None, 256)
    words = draft.check_words()
    assert words == [
        "org/pairs", "--model", "org/model", "--max-seq-length", "256", "--json",
    ]  # fmt: skip


def test_the_built_in_model_brings_its_preset_and_takes_it_away():
    draft = Draft().with_model(str(demo.model_path()))
    assert draft.preset == "demo"
    assert draft.with_model("org/other").preset == "balanced"


def test_the_built_in_pairs_bring_their_validation_pairs_and_take_them_away():
    draft = Draft().with_data(str(demo.train_path()))
    assert draft.own["valid_data"] == str(demo.valid_path())
    assert "valid_data" not in draft.with_data("org/other").own


def test_a_path_is_made_absolute_and_an_id_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "pairs.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    assert Draft().with_data(" pairs.jsonl ").data == str(tmp_path / "pairs.jsonl")
    assert Draft().with_data("argilla/dpo-mix-7k").data == "argilla/dpo-mix-7k"
    assert Draft().with_data("x" * 5000).data == "x" * 5000


def test_a_draft_is_kept_as_it_was_typed_and_read_again(tmp_path, planned):
    draft = planned.with_preset("quick").with_value("rank", "1x")
    save_draft(draft, tmp_path / "new" / "draft.json")
    assert load_draft(tmp_path / "new" / "draft.json") == draft


@pytest.mark.parametrize("text", ["", "[]", '{"own": 3}', '{"own": {"unknown": 1}}', "\x00"])
def test_a_damaged_draft_is_no_draft(tmp_path, text):
    (tmp_path / "draft.json").write_text(text)
    assert load_draft(tmp_path / "draft.json") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "true"), (5e-5, "5e-05"), (["a", "b"], "a,b"), ({"a": "b"}, "a=b")],
)
def test_values_are_written_as_they_are_typed(value, text):
    assert value_text(value) == text


def test_basic_settings_exist():
    assert set(BASIC) <= set(Draft(preset="demo").config().model_dump())


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_asks_for_more_blocks_than_the_built_in_model_has(preset):
    draft = Draft().with_model(str(demo.model_path())).with_preset(preset)
    assert draft.get("num_layers") in (-1, SETTINGS["num_layers"].default)
    assert (
        Draft({"num_layers": "2"}, preset).with_model(str(demo.model_path())).get("num_layers")
        == "2"
    )


def test_settings_of_other_objectives_are_idle_and_those_of_a_preset_fall_away():
    dpo = Draft().with_model(str(demo.model_path())).with_value("objective", "dpo")
    assert dpo.get("lam") == SETTINGS["lam"].default
    assert dpo.problems() == []
    assert {"lam", "preference", "gamma"} <= dpo.idle
    assert not {"beta", "dpo_loss", "rank"} & dpo.idle
    reward = dpo.with_value("objective", "reward")
    assert {"lam", "beta", "nll_weight", "nll_scope", "reference"} <= reward.idle
    assert not {"use_margin", "center"} & reward.idle
    assert reward.problems() == []
    wrong = dpo.with_value("lam", "0.3")
    assert "lam" not in wrong.idle
    assert [problem.names for problem in wrong.problems()] == [("lam", "objective")]
    assert {"beta", "dpo_loss", "gamma", "reference"} <= Draft().idle


def test_the_objective_is_one_that_the_data_can_serve(planned):
    labelled = planned.with_pairs(200, is_labelled=True)
    assert labelled.get("objective") == "kto"
    assert labelled.problems() == []
    # The user's own choice is not overruled, but named as what cannot be.
    (problem,) = labelled.with_value("objective", "dpo").problems()
    assert problem.names == ("objective",)
    assert "kto learns from them" in problem.text
    other = labelled.with_value("data", "org/others")
    assert other.get("objective") == "kto"
    assert other.with_pairs(200).get("objective") == "orpo"
    pairs = planned.with_pairs(200).with_value("objective", "kto")
    (problem,) = pairs.problems()
    assert problem.names == ("objective", "unpair")
    taken_apart = pairs.with_value("unpair", "true")
    assert taken_apart.problems() == []
    assert taken_apart.with_pairs(100).get("objective") == "kto"
    # dpo stays what it is: pairs serve it.
    assert planned.with_value("objective", "dpo").with_pairs(9).get("objective") == "dpo"


def test_the_learning_rate_goes_with_the_objective_in_field_and_command(planned):
    dpo = planned.with_preset("quick").with_value("objective", "dpo")
    assert dpo.get("learning_rate") == dpo.config().learning_rate == 1e-5
    assert "--learning-rate" not in dpo.command()
    orpos = dpo.with_value("learning_rate", "5e-5")
    assert "--learning-rate 5e-5" in orpos.command()
    assert parse_train(shlex.split(orpos.command())[2:]).config.learning_rate == 5e-5
    assert planned.with_preset("quick").get("learning_rate") == 1e-4
