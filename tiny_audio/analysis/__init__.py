"""Error analysis of evaluations: reads their results folders and nothing else."""
