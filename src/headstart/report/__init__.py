"""Reports: records of runs and comparisons as one HTML page, model card and CLAIM checklist."""

from headstart.report.writing import write_claim_template, write_report

__all__ = ["write_claim_template", "write_report"]
