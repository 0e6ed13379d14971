"""Processes that the server starts: how they are started, ended, told apart and given CPU time."""
