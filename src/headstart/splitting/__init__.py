"""Who is trained on and who is scored: seeded splits that keep classes in proportion.

Pure functions of labels and, where given, codes of units.  Images of one unit (a patient, a
video, duplicates) are never on both sides.  Classes are in the proportion of the whole as far
as whole images and whole units allow.  The same arguments give the same split, for ever: every
draw hangs on a seed, and what units are called does not matter, only which images share one.
Units of one image each give the split of no units at all.
"""

from headstart.splitting.folds import inner_folds, stratified_folds
from headstart.splitting.holding import hold_out, inner_hold_out
from headstart.splitting.leaving import (
    MAX_LEFT_OUT,
    check_seen,
    check_sources,
    leave_one_group_out,
    leave_one_source_out,
)
from headstart.splitting.sampling import sample_evenly, sample_units
from headstart.splitting.units import crossing, number_units, straddling

__all__ = [
    "MAX_LEFT_OUT",
    "check_seen",
    "check_sources",
    "crossing",
    "hold_out",
    "inner_folds",
    "inner_hold_out",
    "leave_one_group_out",
    "leave_one_source_out",
    "number_units",
    "sample_evenly",
    "sample_units",
    "straddling",
    "stratified_folds",
]
