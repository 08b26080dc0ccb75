"""The adapter folder as mlx-lm reads it."""

import hashlib

from orpo_mlx.adapters.files import read_adapter_spec


def test_the_files_are_copied_byte_for_byte_with_a_card_and_checksums(
    make_adapter, export, tmp_path
):
    made = make_adapter("qwen3_moe", num_layers=1)
    events = export(made.folder, "--to", "mlx", "--out", tmp_path / "out")
    for name in ("adapters.safetensors", "adapter_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (made.folder / name).read_bytes()
    assert read_adapter_spec(tmp_path / "out").num_layers == 1
    assert (tmp_path / "out" / "README.md").read_text().startswith("---\n")
    assert f"--adapter-path {tmp_path / 'out'}" in events[-1]["command"]
    lines = (tmp_path / "out" / "SHA256SUMS").read_text().splitlines()[1:]
    assert len(lines) == 3
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest
