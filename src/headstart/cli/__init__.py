"""The command line: parse, call, print. Every command loads what it needs when it runs."""

from headstart.cli.app import main

__all__ = ["main"]
