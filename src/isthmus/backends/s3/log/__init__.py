"""Layout `log`: batches of writes as entries of one ordered log."""
