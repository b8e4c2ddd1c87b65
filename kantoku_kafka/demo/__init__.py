"""``kantoku-kafka demo``: thousands of tasks, an executor killed amid them, and the account that the topics give."""
