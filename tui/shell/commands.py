"""Every command of the app, declared once: key, footer, palette and help come from here.

The id never changes once released: `keys.toml` names it. The last part of the id is the action:
`live.stop-now` calls `action_stop_now` of the screen or widget that has the area `live`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from textual.binding import Binding, BindingType


@dataclass(frozen=True)
class Command:
    """One thing a user can do.

    Attributes:
        id: `area.name`; stable.
        key: default key or keys, comma-separated. Only letters, digits, F-keys, arrows and
            ctrl+letter reach an app in every terminal.
        footer: label in the footer, "" for none; at most six per screen fit 80 columns.
        palette: "Area: verb", "" if it makes no sense in the palette (cursor movements).
        help: one sentence.
    """

    id: str
    key: str
    footer: str
    palette: str
    help: str

    @property
    def area(self) -> str:
        """Where the command is valid."""
        return self.id.partition(".")[0]

    @property
    def action(self) -> str:
        """Name of the method `action_...` without its prefix."""
        return self.id.partition(".")[2].replace("-", "_")

    def binding(self) -> Binding:
        """Return what Textual binds."""
        return Binding(
            self.key,
            self.action,
            self.footer or self.help,
            show=bool(self.footer),
            tooltip=self.help,
            id=self.id,
        )


APP = (
    Command("app.help", "question_mark,f1", "Help", "App: help for this screen",
            "Show the keys of this screen and of the focused part."),
    Command("app.settings", "comma", "", "App: settings",
            "Theme, charset, smoothing, animation, keys."),
    # Where a field takes letters, only the F-key reaches the app.
    Command("app.read", "a,f10", "", "App: read this screen as a sentence",
            "Say in one sentence what the screen shows, F10 in a field; also for screen readers."),
    Command("app.copy-reading", "A", "", "App: copy the screen's sentence",
            "Copy that sentence to the clipboard."),
    Command("app.next-theme", "ctrl+t", "", "App: next theme", "Switch between dark and light."),
    Command("app.doctor", "f8", "", "App: doctor", "Check this machine, its caches and its disk."),
    Command("app.leave", "q", "Quit", "App: quit", "Leave; a training goes on or is saved."),
)  # fmt: skip

SCREEN = (
    Command("screen.back", "escape", "", "Screen: back", "One level out."),
)  # fmt: skip

RUNS = (
    Command("runs.new", "n", "New", "Runs: new run", "Choose model, data and settings; start."),
    Command("runs.like", "N", "", "Runs: new run from this",
            "Plan a run with the settings of the selected one, to change some."),
    Command("runs.open", "o", "", "Runs: open", "Open the selected run (Enter does too)."),
    Command("runs.resume", "R", "Resume", "Runs: resume",
            "Go on with the selected run from its newest checkpoint."),
    Command("runs.compare", "c", "Compare", "Runs: compare",
            "Compare the marked runs, the selected one's sweep, or it with the newest other."),
    Command("runs.export", "e", "Export", "Runs: export", "Export the selected run's adapter."),
    Command("runs.chat", "C", "Chat", "Runs: chat",
            "Talk with the selected run's adapter and its base model."),
    Command("runs.test", "t", "", "Runs: test",
            "Ask the selected run's adapter and its base model the same things."),
    Command("runs.judge", "j", "", "Runs: judge answers blind",
            "Compare answers of two marked runs, or of the selected one and its base, blind."),
    Command("runs.serve", "v", "", "Runs: serve",
            "Let the marked runs, or the selected one, answer other programs, as OpenAI's API."),
    Command("runs.result", "r", "", "Runs: result",
            "Show whether the selected run has helped."),
    Command("runs.mark", "space", "", "Runs: mark for comparing", "Mark or unmark a run."),
    Command("runs.queue", "Q", "", "Runs: the queue",
            "How runs that wait for their turn stand; go on with them, stop, or empty the queue."),
    Command("runs.delete", "D", "", "Runs: delete to the trash",
            "Move the marked runs, or the selected one, to the trash folder, after asking."),
    Command("runs.label", "l", "", "Runs: name, tags, note",
            "Name the selected run, tag it, note something about it; the filter finds it by that."),
    Command("runs.filter", "slash", "", "Runs: filter", "Show only runs that contain a text."),
    Command("runs.sort", "s", "", "Runs: sort by the next column",
            "Sort by the next column (a click on a header does too)."),
    Command("runs.turn", "S", "", "Runs: turn the order round", "Sort the other way round."),
    Command("runs.demo", "m", "", "Runs: train the demo",
            "Train the built-in tiny model on built-in pairs, about a minute."),
)  # fmt: skip

LIVE = (
    Command("live.pause", "p", "Pause/go on", "Run: pause, or go on",
            "Wait, memory kept; or go on."),
    Command("live.free", "P", "", "Run: pause and free memory",
            "Save and end, so that the memory is free; Resume goes on."),
    Command("live.stop", "s", "Stop & save", "Run: stop and save",
            "Finish the step, save a checkpoint and the adapter, end."),
    Command("live.stop-now", "X", "", "Run: stop without saving",
            "End now; what came after the last checkpoint is lost. Asks first."),
    Command("live.checkpoint", "c", "Save now", "Run: checkpoint now",
            "Save a checkpoint after this step."),
    Command("live.sample", "g", "", "Run: sample now", "Answer the held-out prompts now."),
    Command("live.resume", "R", "Resume", "Run: resume", "Go on from the newest checkpoint."),
    Command("live.anew", "n", "", "Run: new run from this",
            "Plan a run like this one, once it has ended; after NaN at half the rate, from the "
            "last checkpoint."),
    Command("live.gentler", "L", "", "Run: resume with less work at a time",
            "Go on with shorter command buffers, then in halves, after GPU time or memory ended."),
    Command("live.charts", "v", "Charts", "Run: choose charts", "Choose which charts are shown."),
    Command("live.detach", "d", "", "Run: detach", "Leave this screen; the training goes on."),
    Command("live.export", "e", "Export", "Run: export",
            "Export this run's adapter, once it has ended."),
    Command("live.chat", "C", "Chat", "Run: chat",
            "Talk with adapter and base model, once the run has ended."),
    Command("live.test", "t", "Test", "Run: test",
            "Ask adapter and base model the same things, once the run has ended."),
    Command("live.result", "r", "", "Run: result",
            "Show whether it has helped, once the run has ended."),
    Command("live.tab-1", "1", "", "Run: events", "Show the events."),
    Command("live.tab-2", "2", "", "Run: samples", "Show answers to the held-out prompts."),
    Command("live.tab-3", "3", "", "Run: config", "Show the settings the run was started with."),
    Command("live.tab-4", "4", "", "Run: log", "Show the trainer's output."),
    Command("live.follow", "f", "", "Run: follow the newest line", "Follow, or stay here."),
    Command("live.x-axis", "x", "", "Charts: x axis", "Steps, tokens or time."),
    Command("live.notes", "i", "", "Charts: what do they say",
            "All notes that apply to these charts, in full."),
    Command("live.save-charts", "w", "", "Charts: save as CSV and SVG",
            "Write the charts shown into the run's folder."),
    Command("live.kill", "K", "", "Run: kill the process", "Offered when a stop gets no answer."),
)  # fmt: skip

CHART = (
    Command("chart.cursor-left", "left", "", "", "Move the crosshair left."),
    Command("chart.cursor-right", "right", "", "", "Move the crosshair right."),
    Command("chart.zoom-in", "plus,equals_sign", "", "", "Zoom in (the wheel does too)."),
    Command("chart.zoom-out", "minus", "", "", "Zoom out."),
    Command("chart.pan-left", "h", "", "", "Move left in a zoomed chart."),
    Command("chart.pan-right", "l", "", "", "Move right in a zoomed chart."),
    Command("chart.fit", "0", "", "Chart: show all", "Show all of the run, no crosshair."),
    Command("chart.log", "y", "", "Chart: logarithmic y axis", "Logarithmic y axis, or not."),
    Command("chart.smooth-less", "left_square_bracket", "", "", "Smooth less."),
    Command("chart.smooth-more", "right_square_bracket", "", "", "Smooth more."),
    Command("chart.band", "b", "", "Chart: raw values behind",
            "Draw the raw values of the next line behind, or none."),
    Command("chart.maximise", "enter", "", "Chart: maximise", "This chart alone, or all again."),
)  # fmt: skip

NEW = (
    Command("new.next", "ctrl+n", "Next", "New run: next step", "Go to the next step."),
    Command("new.browse", "ctrl+o", "Browse", "New run: browse",
            "Choose a folder with a model, or a file with pairs."),
    Command("new.map", "f3", "Columns", "New run: name the columns",
            "Say which column is the prompt, the good answer and the bad one."),
    Command("new.start", "ctrl+r", "Start", "New run: start", "Start the training."),
    Command("new.sweep", "w", "Sweep", "New run: several values of a setting",
            "Give a setting several values: each makes a run, one after the other."),
    Command("new.peers", "p", "", "New run: several processes, or several Macs",
            "Divide the steps over processes of this machine, or over Macs; see the command."),
    Command("new.copy-command", "ctrl+y", "Copy", "New run: copy the command",
            "Copy the command line that does the same."),
    Command("new.source", "f2", "", "New run: this machine, or the Hub",
            "Switch between what is on this machine, the Hub, and the chosen pairs."),
    Command("new.probe", "f4", "", "New run: measure the time",
            "Load the model and take 3 steps on the longest batch."),
    Command("new.reset", "f5", "Reset", "New run: reset the field",
            "Give the setting its value of the preset or its default again."),
    Command("new.preset", "f6", "Preset", "New run: next preset",
            "Quick, Balanced, Thorough, Demo."),
    Command("new.suggestion", "f7", "", "New run: take settings that fit",
            "Take the first suggested settings that fit into memory."),
    Command("new.afresh", "f9", "", "New run: begin afresh", "Forget the draft, after asking."),
    Command("new.step-1", "1", "", "", "Choose the model."),
    Command("new.step-2", "2", "", "", "Choose the data."),
    Command("new.step-3", "3", "", "", "Choose the settings."),
    Command("new.step-4", "4", "", "", "Review and start."),
)  # fmt: skip

PREVIEW = (
    Command("preview.next", "right", "", "", "Show the next pair."),
    Command("preview.previous", "left", "", "", "Show the pair before."),
    Command("preview.view", "v", "", "Pairs: next view", "Text, tokens, raw row, lengths."),
    Command("preview.all", "x", "", "Pairs: show all", "All pairs again, not those of a finding."),
)  # fmt: skip

DOCTOR = (
    Command("doctor.self-test", "T", "Self-test", "Doctor: self-test",
            "Train the built-in model: the same twice, and the same when interrupted."),
    Command("doctor.copy", "y", "Copy", "Doctor: copy", "Copy all lines, for a report."),
)  # fmt: skip

TEST = (
    Command("test.pair", "ctrl+n", "Held-out pair", "Test: next held-out pair",
            "Take the next pair that was held out of the training."),
    Command("test.score", "ctrl+r", "Score", "Test: score the pair",
            "Log-prob per token and log-odds ratio of both answers, base and adapter."),
    Command("test.checkpoint", "ctrl+o", "Checkpoint", "Test: choose the checkpoint",
            "Choose which adapter of the run answers."),
    Command("test.stop", "ctrl+g", "Stop", "Test: end the answers", "End the answers here."),
    Command("test.temperature", "f2", "", "Test: temperature",
            "Next temperature: 0, 0.3, 0.7, 1."),
    Command("test.seed", "f3", "", "Test: another seed", "Other answers, if not at temperature 0."),
    Command("test.top-p", "f4", "", "Test: top-p",
            "Draw from fewer tokens: the likeliest that make up 1, 0.95 or 0.8 of all."),
    Command("test.max-tokens", "f5", "", "Test: longest answer", "256, 1024 or 64 tokens."),
    Command("test.load", "f6", "", "Test: unload the model, or load it again",
            "Give its memory back, or load it again, also after a failure."),
    Command("test.copy", "ctrl+y", "", "Test: copy prompt and answers", "Copy all three texts."),
)  # fmt: skip

CHAT = (
    Command("chat.left", "ctrl+l", "Left better", "Chat: the left answer is better",
            "The left answer is better: keep that pair, or take it back."),
    Command("chat.right", "ctrl+r", "Right better", "Chat: the right answer is better",
            "The right answer is better: keep that pair, or take it back."),
    Command("chat.like", "f4", "Like", "Chat: like the answer",
            "The answer is good: keep that row, or take it back."),
    Command("chat.dislike", "f5", "Dislike", "Chat: dislike the answer",
            "The answer is bad: keep that row, or take it back."),
    Command("chat.stop", "ctrl+g", "Stop", "Chat: end the answers", "End the answers here."),
    Command("chat.edit", "up", "", "Chat: say a turn otherwise",
            "Bring the last turn into the empty field, then those before, to send one again."),
    Command("chat.edit-next", "down", "", "", "Bring the turn after that one into the field."),
    Command("chat.correct", "f9", "", "Chat: correct the answer",
            "Bring the answer into the field; made better, it is a pair."),
    Command("chat.retry", "ctrl+n", "", "Chat: answer again", "Answer again, with the next seed."),
    Command("chat.sides", "f7", "", "Chat: who answers",
            "Both, the adapter alone, the base alone."),
    Command("chat.checkpoint", "ctrl+o", "", "Chat: choose the checkpoint",
            "Choose which adapter of the run answers."),
    Command("chat.temperature", "f2", "", "Chat: temperature",
            "Next temperature: 0, 0.3, 0.7, 1."),
    Command("chat.seed", "f3", "", "Chat: another seed", "Other answers, if not at temperature 0."),
    Command("chat.load", "f6", "", "Chat: unload the model, or load it again",
            "Give its memory back, or load it again, also after a failure."),
    Command("chat.system", "f12", "", "Chat: system prompt",
            "Bring the system prompt into the field."),
    Command("chat.keep", "ctrl+s", "", "Chat: keep the prompt",
            "Add the last prompt to the saved ones."),
    Command("chat.ask", "f11", "", "Chat: ask the saved prompts",
            "Ask the saved prompts of the base and each checkpoint, at temperature 0."),
    Command("chat.page-up", "pageup", "", "", "Scroll the conversation back."),
    Command("chat.page-down", "pagedown", "", "", "Scroll the conversation on."),
    Command("chat.copy", "ctrl+y", "", "Chat: copy turn and answers",
            "Copy the last turn and its answers."),
)  # fmt: skip

TOKENS = (
    Command("tokens.next", "right,down", "", "", "Read the next token."),
    Command("tokens.previous", "left,up", "", "", "Read the token before."),
)  # fmt: skip

EXPORT = (
    Command("export.start", "ctrl+r", "Start", "Export: start",
            "Write the chosen formats, one after the other; each is checked afterwards."),
    Command("export.stop", "ctrl+g", "Stop", "Export: stop",
            "End what is being written; nothing is left of it."),
    Command("export.browse", "ctrl+o", "Browse", "Export: choose folder or file",
            "Choose the target folder, or the file of the field that has the focus."),
    Command("export.copy", "y,ctrl+y", "Copy command", "Export: copy the command to use it",
            "Copy the command that uses the selected format, or the one written last."),
)  # fmt: skip

RESULT = (
    Command("result.chat", "C", "Chat", "Result: chat",
            "Talk with the run's adapter and its base model."),
    Command("result.test", "t", "", "Result: test",
            "Ask the run's adapter and its base model the same things."),
    Command("result.export", "e", "Export", "Result: export", "Export the run's adapter."),
    Command("result.serve", "s", "", "Result: serve",
            "Let base and adapter answer other programs, as OpenAI's API."),
    Command("result.new-from-this", "n", "New from this", "Result: new run from this",
            "Plan a run with the settings of this one, to change some."),
    Command("result.evaluate", "v", "Evaluate", "Result: compare base and adapter",
            "Compare base and adapter on all held-out pairs now; what is there is replaced."),
)  # fmt: skip

COMPARE = (
    Command("compare.metric", "m", "Metric", "Compare: choose the metric",
            "Choose which metric is drawn."),
    Command("compare.x-axis", "x", "X axis", "Compare: x axis", "Steps, tokens or time."),
    Command("compare.settings", "d", "All settings", "Compare: all settings, or those that differ",
            "Show all settings, or only those that differ."),
    Command("compare.like", "n", "", "Compare: new run from one of these",
            "Plan a run with the settings of one of these, to change some."),
    Command("compare.judge", "j", "", "Compare: judge answers blind",
            "Compare answers of the first two runs, blind."),
    Command("compare.save", "w", "Save", "Compare: save as CSV and SVG",
            "Write what the chart shows into the first run's folder."),
)  # fmt: skip

GROUP = (
    Command("group.metric", "m", "Metric", "Group: choose the metric",
            "Choose by which metric the runs are sorted."),
    Command("group.charts", "c", "Charts", "Group: the first ones in one chart",
            "Compare the first four runs in one chart."),
    Command("group.result", "r", "Result", "Group: result",
            "Show whether the selected run has helped (Enter does too)."),
    Command("group.like", "n", "New from this", "Group: new run from this",
            "Plan a run with the settings of the selected one, to change some."),
)  # fmt: skip

JUDGE = (
    Command("judge.first", "1", "First", "Judge: the first answer is better",
            "The first answer is better."),
    Command("judge.second", "2", "Second", "Judge: the second answer is better",
            "The second answer is better."),
    Command("judge.tie", "t", "Tie", "Judge: a tie", "Neither answer is better."),
    Command("judge.skip", "s", "Skip", "Judge: skip", "Give no verdict on this one."),
    Command("judge.back-one", "u", "", "Judge: the one before again",
            "Give another verdict on the one before."),
)  # fmt: skip

SERVE = (
    Command("serve.turn", "s", "Stop/start", "Serve: stop, or start",
            "End the server, or start one for the chosen runs."),
    Command("serve.copy", "y", "Copy curl", "Serve: copy a line for curl",
            "Copy a command that asks the server something."),
    Command("serve.copy-address", "u", "Copy address", "Serve: copy the address",
            "Copy the address, for programs that speak OpenAI's API."),
    Command("serve.copy-command", "c", "", "Serve: copy the command",
            "Copy the command that serves the same without the app."),
)  # fmt: skip

AREAS: dict[str, tuple[Command, ...]] = {
    "app": APP,
    "screen": SCREEN,
    "runs": RUNS,
    "live": LIVE,
    "chart": CHART,
    "new": NEW,
    "preview": PREVIEW,
    "doctor": DOCTOR,
    "test": TEST,
    "chat": CHAT,
    "tokens": TOKENS,
    "export": EXPORT,
    "compare": COMPARE,
    "group": GROUP,
    "judge": JUDGE,
    "result": RESULT,
    "serve": SERVE,
}
"""All commands by area. To add one: a line in its area, and an `action_` of that name."""


def bindings(*areas: str) -> list[BindingType]:
    """Return the Textual bindings of some areas, in order."""
    return [command.binding() for area in areas for command in AREAS[area]]


def dialog_bindings() -> list[BindingType]:
    """Return what also works in a dialog, which the app's own keys do not reach: reading it."""
    return [
        replace(command.binding(), action=f"app.{command.action}", show=False)
        for command in APP
        if command.id in ("app.read", "app.copy-reading")
    ]


def all_commands() -> list[Command]:
    """Return every command."""
    return [command for commands in AREAS.values() for command in commands]


def palette_commands(areas: Iterable[str]) -> list[Command]:
    """Return the commands of some areas that belong into the palette."""
    return [command for area in areas for command in AREAS[area] if command.palette]


def key_text(key: str) -> str:
    """Return how a key is written for people.

    >>> key_text("question_mark,f1"), key_text("ctrl+t"), key_text("f2"), key_text("f")
    ('?', '^t', 'F2', 'f')
    """
    first = key.split(",")[0]
    if first.startswith("ctrl+"):
        return "^" + first[5:]
    return first.upper() if is_f_key(first) else KEY_TEXTS.get(first, first)


def key_of(command_id: str, keymap: Mapping[str, str]) -> str:
    """Return the key of a command as it is written for people; `keymap` has the user's own keys."""
    command = next(one for one in all_commands() if one.id == command_id)
    return key_text(keymap.get(command_id, command.key))


def is_f_key(key: str) -> bool:
    """Tell F1 to F12 from other keys, by Textual's names."""
    return key[0] == "f" and key[1:].isdigit()


KEY_TEXTS = {
    "question_mark": "?", "comma": ",", "slash": "/", "escape": "esc", "plus": "+", "minus": "-",
    "left_square_bracket": "[", "right_square_bracket": "]", "left": "←", "right": "→",
    "up": "↑", "down": "↓", "enter": "⏎", "equals_sign": "=",
}  # fmt: skip
