"""Steps of trainings on made-up pairs: this trainer, its plain mode, another trainer."""
