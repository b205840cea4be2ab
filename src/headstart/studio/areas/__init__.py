"""The three areas of the page: predict, runs, data."""
