"""The tasks of each notebook, with a solution, what is compared, and the mistakes that are told by name."""
