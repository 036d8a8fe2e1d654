"""GPU hours, tokens, memory and the size of the judge's pool that a config needs: `fapo plan`."""
