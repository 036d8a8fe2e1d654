"""Audit of solutions: the rate of flawed solutions among the correct ones, behind `fapo judge`."""
