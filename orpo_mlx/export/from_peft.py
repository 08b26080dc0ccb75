"""`orpo-mlx adapter import`: a PEFT adapter becomes one in mlx-lm's format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orpo_mlx.errors import AdapterError

if TYPE_CHECKING:
    import mlx.core as mx

    from orpo_mlx.adapters.lora import AdapterSpec
    from orpo_mlx.export.base import BaseModel
    from orpo_mlx.export.checks import ExportCheck
    from orpo_mlx.export.progress import ExportListener
    from orpo_mlx.export.written import Exported, Target


def import_adapter(
    folder: Path, target: Target, base: BaseModel | None, say: ExportListener
) -> Exported:
    """Write a PEFT adapter as an adapter folder of mlx-lm.

    Args:
        folder: of PEFT's format.
        target: the folder to write.
        base: the model it is for; without it names are taken over and only the adapter itself is
            checked.
        say: told how it goes.

    Raises:
        AdapterError: it is damaged, incomplete, not finite, or does not fit the model.
        ExportError, ExportCheckError: it cannot be written, or was not written right.
    """
    import mlx.core as mx

    from orpo_mlx.adapters import peft
    from orpo_mlx.adapters.files import CONFIG_FILE, WEIGHTS_FILE
    from orpo_mlx.export.serving import with_mlx
    from orpo_mlx.export.written import Exported, require_space, write_folder
    from orpo_mlx.models.architectures import mlx_name
    from orpo_mlx.text.commands import command_line

    _require_peft(folder)
    say.step(0, 1, "reading the adapter")
    row = base.known_architecture if base else None
    to_mlx = row.mlx_name if row else mlx_name
    spec = peft.read_peft_spec(folder, to_mlx)
    expected = _expected(spec, base) if base else None
    arrays = peft.read_peft_arrays(folder, expected, to_mlx)
    if expected is None:
        _require_whole(folder, spec, arrays)
    require_space(target.path, sum(array.nbytes for array in arrays.values()))

    def write(out: Path) -> None:
        mx.save_safetensors(str(out / WEIGHTS_FILE), arrays, metadata={"format": "mlx"})
        text = peft.mlx_config(folder, spec, base.recorded_name if base else None)
        (out / CONFIG_FILE).write_text(text, encoding="utf-8")

    files = write_folder(target, write, lambda out: _inspect(out, arrays), say.verified)
    model = base.recorded_name if base else "MODEL"
    command = command_line(
        "mlx_lm.generate", "--model", model, "--adapter-path", target.path, "--prompt", "Hello"
    )
    notes = [] if base else ["Not compared with a model: give --model to have it checked."]
    return Exported(target.path, files, command, [with_mlx(model, target.path)], notes)


def _require_peft(folder: Path) -> None:
    from orpo_mlx.adapters.peft import CONFIG_FILE, WEIGHTS_FILE, is_peft

    if is_peft(folder):
        return
    needed = f"{CONFIG_FILE} and {WEIGHTS_FILE}"
    if (folder / "adapters.safetensors").is_file():
        raise AdapterError(
            f"{folder}: this adapter is in mlx-lm's format already.", "It can be used as it is."
        )
    if (folder / "adapter_model.bin").is_file():
        raise AdapterError(
            f"{folder}: only adapter_model.bin; pickles are not read, since loading them can run "
            "code.",
            f"Save it again with PEFT as safetensors: {needed}.",
        )
    raise AdapterError(
        f"{folder}: no PEFT adapter is there.", f"Give a folder that holds {needed}."
    )


def _expected(spec: AdapterSpec, base: BaseModel) -> dict[str, tuple[int, ...]]:
    """Return mlx-lm's names and shapes of the adapter on the base."""
    parameters = {
        "rank": spec.rank,
        "scale": spec.scale,
        "dropout": 0.0,
        "keys": list(spec.target_modules),
    }
    return base.adapter_shapes(parameters, -1, spec.dora)[1]


def _require_whole(folder: Path, spec: AdapterSpec, arrays: dict[str, mx.array]) -> None:
    """Without a model: both halves of every layer, of the rank that the settings say."""
    for layer in spec.target_modules:
        for half, axis in (("lora_a", -1), ("lora_b", -2)):
            array = arrays.get(f"{layer}.{half}")
            if array is None:
                raise AdapterError(
                    f"{folder}: the {half} of {layer} is missing.",
                    "The file is incomplete: copy or download it again.",
                )
            # Experts are stacked as PEFT has them, the other way round.
            rank = array.shape[axis if array.ndim == 2 else -3 - axis]
            if rank != spec.rank:
                raise AdapterError(
                    f"{folder}: {layer}.{half} has shape {tuple(array.shape)}, so rank {rank}; "
                    f"adapter_config.json says r = {spec.rank}.",
                    "The two files do not belong together: copy or download both again.",
                )


def _inspect(out: Path, arrays: dict[str, mx.array]) -> list[ExportCheck]:
    """Open the folder again through the import gate; every value must be the one read."""
    import mlx.core as mx

    from orpo_mlx.adapters.files import WEIGHTS_FILE, read_adapter_spec
    from orpo_mlx.export.checks import ExportCheck, check_tensors
    from orpo_mlx.export.written import check_checksums
    from orpo_mlx.models.weights import load_checked

    read_adapter_spec(out)
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    found = load_checked(out / WEIGHTS_FILE, shapes, within=out)
    wrong = [name for name, array in arrays.items() if not mx.array_equal(array, found[name])]
    text = f"{len(wrong)} of {len(arrays)} tensors differ from those of the PEFT adapter"
    return [
        check_tensors({name: array.shape for name, array in found.items()}, shapes),
        ExportCheck("values", not wrong, float(len(wrong)), 0.0, text),
        check_checksums(out),
    ]
