"""A loaded model that answers other processes."""
