"""Carrying out a run that writes a store: options, processes, failures and the verdict."""
