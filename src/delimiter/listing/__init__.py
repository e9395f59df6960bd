"""Listings of what really exists, with which the record is compared (``reconcile_with``) or begun (``adopt``).

A listing is an iterable of :class:`Existing`, or something to call for one. :func:`read` takes it from a file,
:func:`rows` from a service's own table. Nothing here keeps more than a few entries at a time.
"""

from delimiter.listing.existing import Existing, Listing
from delimiter.listing.files import parse, read
from delimiter.listing.outcome import Adopted, Mismatch, Progress
from delimiter.listing.tables import rows

__all__ = ["Adopted", "Existing", "Listing", "Mismatch", "Progress", "parse", "read", "rows"]
