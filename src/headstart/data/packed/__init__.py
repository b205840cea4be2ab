"""Data in few large files: packs of encoded images, published archives, and their download."""
