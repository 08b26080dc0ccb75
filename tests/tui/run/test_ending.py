"""However a run ends, a card says why and what to do."""

from __future__ import annotations

import json

import pytest

from orpo_mlx.runs.events import CheckpointSaved, RunFailed, RunFinished, decode, encode
from tui.run.ending import ending_card


def test_a_crash_is_explained_by_its_last_words(make_state):
    state = make_state({"step": 12}, CheckpointSaved(10, "/c", 1.0, 1))
    log = "step 12\n[METAL] Command buffer execution failed: OutOfMemory\n"
    card = ending_card("crashed", state, log)
    assert card.title == "Crashed at step 12"
    assert card.cause == "The GPU ran out of memory."
    assert "lower --max-seq-length" in card.remedy
    assert "R goes on from step 10." in card.remedy
    assert card.details[-1].startswith("[METAL]")
    assert card.is_bad


def test_a_crash_without_words_and_checkpoint_still_has_a_remedy(make_state):
    card = ending_card("crashed", make_state({"step": 3}), "", {"live.resume": "r"})
    assert "killed, out of memory" in card.cause
    assert "No checkpoint was saved; r tries again from the beginning." in card.remedy


TIMEOUT = "[METAL] Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)"
SHORT = {"command_buffers": "short"}


@pytest.mark.parametrize(
    ("had", "offered"),
    [
        ({}, SHORT),
        (SHORT, {**SHORT, "micro_batch_parts": 2}),
        ({**SHORT, "micro_batch_parts": 2}, {**SHORT, "micro_batch_parts": 4}),
        ({**SHORT, "micro_batch_parts": "many"}, {}),  # as a damaged file may say
        # A pass of one pair cannot be divided.
        ({**SHORT, "micro_batch_size": 1, "batching": "fixed", "grad_accumulation_steps": 8}, {}),
        ({**SHORT, "micro_batch_size": 1, "grad_accumulation_steps": 1}, {}),
        (
            {**SHORT, "micro_batch_size": 1, "grad_accumulation_steps": 8, "micro_batch_parts": 2},
            {**SHORT, "micro_batch_parts": 4},
        ),
        (
            {**SHORT, "micro_batch_size": 3, "batching": "fixed", "micro_batch_parts": 2},
            {**SHORT, "micro_batch_parts": 3},
        ),
    ],
)
def test_after_a_gpu_timeout_less_at_a_time_is_offered_first_shorter_then_halved(
    make_state, had, offered
):
    failed = RunFailed("RuntimeError", "too long", "Do so.", 3, "/c", kind="gpu_timeout")
    cards = [
        ending_card("failed", make_state({"step": 3}, failed, **had)),
        ending_card("crashed", make_state({"step": 3}, **had), TIMEOUT),
    ]
    for card in cards:
        assert card.changes == offered
        assert ("L goes on with --command-buffers short" in card.remedy) == bool(offered)
        assert "--micro-batch-parts 4" in card.remedy or offered.get("micro_batch_parts") != 4


@pytest.mark.parametrize(
    ("had", "offered"),
    [({}, {"micro_batch_parts": 2}), (SHORT, {**SHORT, "micro_batch_parts": 2})],
)
def test_after_one_array_too_large_passes_are_halved_at_once(make_state, had, offered):
    words = (
        "[metal::malloc] Attempting to allocate 17179869184 bytes which is greater than the "
        "maximum allowed buffer size of 14302248960 bytes."
    )
    failed = RunFailed("RuntimeError", f"no: {words}", "Do so.", 3, "/c", kind="out_of_memory")
    for card in (
        ending_card("failed", make_state({"step": 3}, failed, **had)),
        ending_card("crashed", make_state({"step": 3}, **had), words),
    ):
        assert card.changes == offered
        assert "--micro-batch-parts 2" in card.remedy


@pytest.mark.parametrize("kind", ["not_finite", "disk", "other"])
def test_after_another_failure_it_is_not(make_state, kind):
    failed = RunFailed("RuntimeError", "gone", "Do so.", 3, "/c", kind=kind)
    assert ending_card("failed", make_state({"step": 3}, failed)).changes == {}
    assert ending_card("crashed", make_state({"step": 3}), "No space left on device").changes == {}


def test_a_failure_says_its_own_message_and_advice(make_state):
    failed = RunFailed("TrainingError", "the loss of step 4 is not finite", "Lower lr.", 3, None)
    card = ending_card("failed", make_state({"step": 3}, failed))
    assert card.cause == "The loss of step 4 is not finite."
    assert card.remedy.startswith("Lower lr.")


GONE = "process 1 (b) is lost: it has ended"
WORDS = "Traceback:\nMemoryError"
SAVED = CheckpointSaved(3, "/c", 1.0, 1)


def lost(make_state, message, hosts, *saved, error="PeerLostError", words=""):
    told = {"kind": "peer", "peer": 1, "last_lines": words}
    failed = RunFailed(error, message, "Give all the same data.", 4, "/c", **told)
    return ending_card("failed", make_state({"step": 4}, *saved, failed, hosts=hosts))


def test_a_lost_process_is_named_with_its_words_and_the_run_goes_on_with_as_many(make_state):
    card = lost(make_state, GONE, ["a", "a"], SAVED, words=WORDS)
    assert card.title == "A process was lost at step 4"
    assert card.cause == "Process 1 (b) is lost: it has ended."
    assert card.details == ("Traceback:", "MemoryError")
    assert card.words_in == "the Log tab"
    assert card.remedy == "R goes on from step 3 with the same 2 processes."
    unsaved = lost(make_state, GONE, ["a", "a"])
    assert unsaved.remedy == (
        "What it printed is in the Log tab. No checkpoint was saved; "
        "R tries again from the beginning with the same 2 processes."
    )


def test_a_run_made_before_these_lines_had_a_field_opens_with_its_whole_message(make_state):
    said = f"{GONE}\nIts last lines:\n{WORDS}"
    raw = json.loads(encode(RunFailed("PeerLostError", said, "So.", 4, "/c", "peer"), 1.0))
    del raw["peer"], raw["last_lines"]
    old = decode(json.dumps(raw)).event
    card = ending_card("failed", make_state({"step": 4}, SAVED, old, hosts=["a", "a"]))
    assert said[1:] in card.cause
    assert card.details == ()


def test_of_several_machines_the_card_has_the_command_to_paste(make_state):
    card = lost(make_state, GONE, ["a", "b"], SAVED)
    assert "What it printed is in a log on b." in card.remedy
    assert "by the same mlx.launch, or by `orpo-mlx resume /r/r --hosts HOSTFILE`" in card.remedy
    assert "R copies it, or goes on here alone" in card.remedy
    assert "start it anew on its 2 machines" in lost(make_state, GONE, ["a", "b"]).remedy


def test_a_process_that_would_not_train_the_same_run_keeps_its_own_advice(make_state):
    said = "process 1 (a) would not train the same run:\n  data: process 0 has 1, it has 2"
    card = lost(make_state, said, ["a", "a"], SAVED, error="PeerRefusedError")
    assert card.title == "Failed at step 4"
    assert card.remedy.startswith("Give all the same data. R goes on from step 3")


def test_a_crash_of_the_first_process_goes_on_with_as_many(make_state):
    card = ending_card("crashed", make_state({"step": 4}, SAVED, hosts=["a", "a", "a"]))
    assert card.remedy.endswith("R goes on from step 3 with the same 3 processes.")


@pytest.mark.parametrize(
    ("reason", "status", "title", "offers_resume"),
    [
        ("completed", "completed", "The run is complete", False),
        ("early_stop", "completed", "Stopped early: validation no longer improved", False),
        ("stopped", "stopped", "Stopped as asked; everything is saved", True),
        ("aborted", "stopped", "Stopped without saving, as asked", True),
    ],
)
def test_after_any_end_the_card_says_what_comes_next(
    make_state, reason, status, title, offers_resume
):
    ended = RunFinished(reason, 50, 60.0, None, best_step=40)
    card = ending_card(status, make_state(CheckpointSaved(50, "/c", 1, 1), ended))
    assert card.title == title
    assert ("R goes on from step 50" in card.remedy) == offers_resume
    assert "e exports it" in card.remedy
    assert "step 40" in card.cause


@pytest.mark.parametrize("status", ["preparing", "running", "paused", "stopping"])
def test_a_living_run_has_no_card(make_state, status):
    assert ending_card(status, make_state({"step": 1})) is None


def test_a_stalled_run_offers_to_end_it(make_state):
    assert "K ends the process" in ending_card("stalled", make_state({"step": 1})).remedy
    own = ending_card("stalled", make_state({"step": 1}), keys={"live.kill": "ctrl+k"})
    assert own.remedy == "Wait, or ^k ends the process; nothing is saved yet."


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "Ended by signal 9 (SIGKILL): by the system when memory ran out, or by somebody's"),
        (-11, "Ended by signal 11 (SIGSEGV): a fault in native code."),
        (-15, "Ended by signal 15 (SIGTERM)."),
        (-99, "Ended by signal 99."),
        (3, "Its process ended with exit code 3."),
        (None, "Its process ended without a word: killed, out of memory, or the power went."),
    ],
)
def test_a_crash_names_the_signal_where_it_is_known(make_state, code, words):
    card = ending_card("crashed", make_state({"step": 3}), exit_code=code)
    assert card.cause.startswith(words)
    assert card.remedy


def test_a_known_fault_and_its_signal_are_both_named_and_older_processes_are_not(make_state):
    old = "OutOfMemory\n--- orpo-mlx: resumed, 2026-01-01 ---\n"
    now = "No space left on device\n--- orpo-mlx: the trainer ended with code -6\n"
    card = ending_card("crashed", make_state({"step": 3}), old + now)
    assert card.cause == "The disk is full (ended by signal 6 (SIGABRT))."
    assert card.details == ("No space left on device",)


def test_a_pause_that_freed_the_memory_is_no_stop(make_state):
    ended = RunFinished("stopped", 50, 60.0, None)
    card = ending_card("stopped", make_state(CheckpointSaved(50, "/c", 1, 1), ended), is_freed=True)
    assert "its memory is free" in card.title
    assert "goes on from step 50" in card.remedy


def test_the_last_words_leave_out_the_carets_of_a_traceback(make_state):
    last = "OSError: [Errno 28] No space left on device"
    log = f"    rest = write(rest)\n           ^^^^^~~~~^^\n{last}\n"
    card = ending_card("crashed", make_state({"step": 3}), log)
    assert card.cause == "The disk is full."
    assert card.details == ("    rest = write(rest)", last)
