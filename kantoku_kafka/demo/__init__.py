"""``kantoku-kafka demo``: thousands of tasks, an executor killed amid them, and the account that the topics give."""

RUNS_VARIABLE = "KANTOKU_DEMO_RUNS"
"""Environment variable: a directory in which every run of a task leaves a line, whatever becomes of the process."""
