"""The audit: what is wrong with the data, found before anything is learnt from them.

`audit_table` makes one pass over the pictures and gives an `Audit`: findings in words, columns
for `images.csv`, and `linked`, the units that every split must keep on one side. `write_audit`
writes `audit.json`, `audit.txt`, `images.csv` and the grid of pairs.
"""

from headstart.audit.findings import AuditSettings, Finding, Pair
from headstart.audit.inspection import Audit, audit_table
from headstart.audit.joint import JointExtractor
from headstart.audit.writing import audit_text, check_audit_folder, write_audit, write_images

__all__ = [
    "Audit",
    "AuditSettings",
    "Finding",
    "JointExtractor",
    "Pair",
    "audit_table",
    "audit_text",
    "check_audit_folder",
    "write_audit",
    "write_images",
]
