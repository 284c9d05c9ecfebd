"""A guard against slow regressions: work is counted, not timed, so that a busy machine says the same."""
