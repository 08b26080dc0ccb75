"""Four steps to a run: model, data, settings, review."""
