"""The settings of a training run, a module per group; `config.TrainConfig` puts them together."""
