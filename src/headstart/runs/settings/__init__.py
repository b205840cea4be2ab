"""What a user decides about a run, group by group."""
