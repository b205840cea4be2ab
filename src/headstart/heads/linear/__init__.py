"""Logistic heads: many problems on one feature matrix, solved at once."""
