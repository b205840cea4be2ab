"""Reports: a run's records as one HTML page, a model card and the CLAIM checklist."""

from headstart.report.writing import write_claim_template, write_report

__all__ = ["write_claim_template", "write_report"]
