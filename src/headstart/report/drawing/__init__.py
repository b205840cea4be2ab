"""Charts, curves and thumbnails."""
