"""Evaluation: recognisers, scores, the results folder, the run and its report."""
