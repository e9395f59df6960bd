"""``delimiter bench``: claims a second on a database, Delimiter's ways and those that are written by hand side by side.

What is measured, and how each way is written, is told in the documentation. Nothing here is part of the public
interface.
"""
