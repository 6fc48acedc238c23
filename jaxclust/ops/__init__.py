"""Formulas over arrays, named by what they are. They know nothing of runs, data or networks."""
