"""The command line: ``delimiter [--store URL] COMMAND``. A door: it opens a store and hands everything to the desk."""

from delimiter.cli.entry import main

__all__ = ["main"]
