"""The command line: one module for each command. The entry point is `fapo.cli.main.main`."""
