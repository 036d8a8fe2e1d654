"""Parts that every trainer shares: training rows, step metrics, run folders, and data to train a judge on."""
