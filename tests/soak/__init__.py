"""Faults in the manner of Jepsen: processes that claim, a nemesis that breaks things, a checker of what they wrote.

``python -m soak`` runs it (``make soak``), ``python -m soak.check FOLDER`` judges a history again.
"""
