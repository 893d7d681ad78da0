"""An evaluation as one HTML page that needs nothing else: scores, figures, and every clip with its errors and its sound."""

from tiny_audio.analysis.report.page import write_report

__all__ = ["write_report"]
