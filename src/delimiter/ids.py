"""The ids of claims that were given none."""

from __future__ import annotations

import os
import time
from typing import Final

__all__ = ["new_id"]

#: Where the time stands in a UUID of version 7, and what of its other bits is fixed: the version and the variant.
_TIME: Final = 80
_FIXED: Final = 0x7 << 76 | 0b10 << 62
_RANDOM: Final = (1 << _TIME) - 1 ^ 0xF << 76 ^ 0b11 << 62


def new_id() -> str:
    """A UUID of version 7: 48 bits of the time in milliseconds, 74 random ones. (RFC 9562, section 5.7.)

    Not of version 4: of a table whose index does not fit into the database's memory any more, each random id needs a
    page that has to be read first. Those of one time lie side by side. Nothing but that rests on the time in them, so
    clocks may differ.

    >>> import uuid
    >>> uuid.UUID(new_id()).version
    7
    >>> new_id() == new_id()
    False
    """
    random = int.from_bytes(os.urandom(10), "big") & _RANDOM
    text = f"{time.time_ns() // 1_000_000 << _TIME | _FIXED | random:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
