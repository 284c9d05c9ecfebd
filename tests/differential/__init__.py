"""Generated queries and programs, run on a real backend and on the evaluator: one answer."""
