"""Requests to a run's trainer, as any part of the app sends them."""

from __future__ import annotations

from orpo_mlx.errors import RunError
from orpo_mlx.runs.control import RequestName, send_request
from orpo_mlx.runs.directory import RunDirectory


def send(run: RunDirectory, request: RequestName) -> None:
    """Send a request to a run's trainer.

    Raises:
        RunError: no trainer is there, or the folder cannot be written.
    """
    try:
        send_request(run, request)
    except OSError as error:
        raise RunError(
            f"{run.control_folder}: cannot be written ({error.strerror}); nothing asked",
            f"Free some space or bring the folder back; `kill {run.pid}` stops and saves.",
        ) from None
