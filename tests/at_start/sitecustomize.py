"""What every process imports that is started by tests which keep all changes apart (:mod:`apart`)."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import apart

if apart.is_asked_for():
    apart.begin()
