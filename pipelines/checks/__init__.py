"""Deterministic rules that find faults in a published dataset before anybody trains on it."""
