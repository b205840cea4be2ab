"""Data that a file lists: manifests, metadata files, and the columns that they have."""
