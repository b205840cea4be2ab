"""What a report says of a run before and beside its figures."""
