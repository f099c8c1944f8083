"""Runs of IV.A.2: config, record, training, searching, evaluating, experiments."""
