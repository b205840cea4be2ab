"""Decoding in processes of their own, which may crash, hang or be killed without harm."""
