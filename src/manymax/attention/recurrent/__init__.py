"""Mechanisms that are read as recurrences: prefix scans, dynamical systems, regression as the tokens come."""
