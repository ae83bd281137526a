"""The report of a zoo: a page for readers, figures for papers, plots and metrics for DVC."""

from weightzoo.report.write import write_report

__all__ = ["write_report"]
