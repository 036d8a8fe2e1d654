"""The reward as an HTTP service: `fapo serve`."""
