"""The figures of the course in docs/course, drawn from real runs."""
