"""Base and adapters as OpenAI's API, started and stopped from the app."""
