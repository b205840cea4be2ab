"""The folder of a run: its record, its files, what resuming needs."""
