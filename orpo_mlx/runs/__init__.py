"""A run directory: its layout and lock, the events in it, the requests put into it, its history.

Light on purpose: the app and `orpo-mlx runs` read runs without loading mlx. To add an event: a
frozen dataclass in `events`, in `Event` and `EVENT_TYPES`, its lines in `event_text`. To add a
metric: a row in `metrics`.
"""
