"""How good a policy is, and how often it is right for the wrong reason: `fapo eval`."""
