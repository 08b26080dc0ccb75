"""The tuned model where LM Studio looks for models: LM Studio loads no adapters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from orpo_mlx.export import fused, gguf_merged
from orpo_mlx.export.progress import Progress, command_line
from orpo_mlx.export.source import AdapterSource
from orpo_mlx.export.written import Exported, Target

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


def export(source: AdapterSource, target: Target, say: Progress) -> Exported:
    """Write an MLX model, or with --base-gguf a merged GGUF, into LM Studio's folder.

    Raises:
        As `fused.export` or `gguf_merged.export`.
    """
    options = dict(target.options)
    if options.get("base_gguf"):
        name = f"{target.path.name}.gguf"
        done = gguf_merged.export_folder(source, target, name, {}, say)
    else:
        quantization = source.base.config.get("quantization") or {}
        if quantization.get("bits"):
            options.setdefault("quantize", str(quantization["bits"]))
        done = fused.export(source, replace(target, options=options), say)
    where = "/".join(target.path.absolute().parts[-2:])
    note = f"In LM Studio it is {where}; if it is not listed, start it anew."
    folder = models_folder()
    if folder is None or target.path.absolute().parent.parent != folder.absolute():
        note = (
            f"LM Studio lists it once it lies in its folder of models as {PUBLISHER}/"
            f"{target.path.name}."
        )
    return replace(done, command=command_line("lms", "load", where), notes=[*done.notes, note])
