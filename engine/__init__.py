"""Processes, scheduling and the command line."""
