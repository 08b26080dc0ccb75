"""A loaded model that answers others: the app by JSON lines, any program as OpenAI's API."""
