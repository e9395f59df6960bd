"""New claims of many callers, made by one statement (or the fewest that a database needs) if all of them fit.

It does what :mod:`delimiter.engines.sql.changes` does in several statements, in the same order: it places the rows,
whose unique keys wait for whoever is just inserting the same ids; it locks the counters by their numbers; it compares
the generations and the limits on the locked rows; and it adds, onto the value that stands there. Where anything is not
as it was expected (an id is known already, a way is no longer the way, one of them does not fit) nothing of it may
stay: it is rolled back, and they are decided one after the other.

So a hot counter is locked, and a transaction committed, once for all who met. (To decide waiting requests together is
what Kubernetes' ResourceQuota does, and TigerBeetle.)
"""

from delimiter.engines.sql.together.arrivals import Arrivals
from delimiter.engines.sql.together.making import Together

__all__ = ["Arrivals", "Together"]
