"""Go's templates: what the language's own documentation says they give."""

from __future__ import annotations

import pytest

from orpo_mlx.export.go_template import GoTemplateError, render_chat

TALK = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("a {{ .System }} b", "a S b"),
        ("{{ if .System }}yes{{ else }}no{{ end }}", "yes"),
        ("{{ if eq .System \"x\" }}1{{ else if eq .System \"y\" \"S\" }}2{{ else }}3{{ end }}",
         "2"),
        ("{{ range .Messages }}<{{ .Content }}>{{ end }}", "<S><one><two>"),
        ("{{ range $i, $m := .Messages }}{{ $i }}{{ $m.Role }} {{ $.System }},{{ end }}",
         "0system S,1user S,2assistant S,"),
        ("{{ $n := 1 }}{{ range .Messages }}{{ $n = .Content }}{{ end }}{{ $n }}", "two"),
        ("{{ range $i, $_ := .Messages }}{{ len (slice $.Messages $i) }}{{ end }}", "321"),
        ("{{ define \"t\" }}[{{ slice . 0 1 }}{{ slice . 1 }}]{{ end }}{{ template \"t\" \"ab\" }}",
         "[ab]"),
        ("{{ printf \"%s\\n-%s\" .System \"z\" }}", "S\n-z"),
        ("{{ if and .System (ne .System \"S\") }}a{{ end }}{{ if not \"\" }}b{{ end }}", "b"),
    ],
)  # fmt: skip
def test_it_is_rendered_as_go_does(template: str, text: str):
    assert render_chat(template, TALK) == text


def test_system_turns_are_joined_and_may_be_missing():
    assert render_chat("[{{ .System }}]", TALK[1:]) == "[]"
    assert render_chat("[{{ .System }}]", [TALK[0], *TALK]) == "[S\n\nS]"


@pytest.mark.parametrize("template", ["{{ if .System }}", "a{{ end }}"])
def test_a_template_that_is_not_whole_is_refused(template: str):
    with pytest.raises(GoTemplateError):
        render_chat(template, TALK)
