"""Multi-layer heads: many small networks trained at once."""
