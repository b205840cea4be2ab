"""Reports on several runs: side by side, compared, a quick choice."""
