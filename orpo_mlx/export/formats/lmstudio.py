"""The tuned model where LM Studio looks for models: LM Studio loads no adapters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from orpo_mlx.export.formats import fused, gguf_merged
from orpo_mlx.export.progress import ExportListener
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.export.written import Exported, Target
from orpo_mlx.text.commands import command_line

PUBLISHER = "orpo-mlx"


def models_folder(home: Path | None = None) -> Path | None:
    """Return LM Studio's folder of models, None if LM Studio was never started here."""
    home = home or Path.home()
    pointer = home / ".lmstudio-home-pointer"
    said = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else ""
    named = [Path(said)] if said else []
    for place in (*named, home / ".lmstudio", home / ".cache" / "lm-studio"):
        if place.is_dir():
            return place / "models"
    return None


def default_target(name: str) -> Path | None:
    """Return models/orpo-mlx/NAME, None without LM Studio."""
    folder = models_folder()
    return folder / PUBLISHER / name if folder else None


def export(source: AdapterSource, target: Target, say: ExportListener) -> Exported:
    """Write an MLX model, or with --base-gguf a merged GGUF, into LM Studio's folder.

    Raises:
        As `fused.export` or `gguf_merged.export`.
    """
    options = dict(target.options)
    if options.get("base_gguf"):
        name = f"{target.path.name}.gguf"
        done = gguf_merged.export_folder(source, target, name, say)
    else:
        quantization = source.base.config.get("quantization") or {}
        if quantization.get("bits"):
            options.setdefault("quantize", str(quantization["bits"]))
        done = fused.export(source, replace(target, options=options), say)
    command, note = _loaded(target.path.absolute())
    return replace(done, command=command, notes=[*done.notes, note])


def _loaded(path: Path) -> tuple[str, str]:
    """Return the command that loads what was written, and where LM Studio sees it."""
    folder = models_folder()
    if folder is not None and path.parent.parent.resolve() == folder.resolve():
        where = "/".join(path.parts[-2:])
        note = f"In LM Studio it is {where}; if it is not listed, start it anew."
        return command_line("lms", "load", where), note
    place = (folder or Path.home() / ".lmstudio" / "models") / PUBLISHER
    where = f"{PUBLISHER}/{path.name}"
    words = (
        command_line("mkdir", "-p", place),
        command_line("cp", "-R", path, place),
        command_line("lms", "load", where),
    )
    note = f"LM Studio lists it once it lies in its folder of models as {where}."
    return " && ".join(words), note
