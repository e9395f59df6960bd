"""The usual create handler in a few lines: :func:`guarded` claims for it, :func:`transactional` runs its transaction.

Both go on a plain function or on a coroutine function, of any web framework or of none.

>>> from sqlalchemy import create_engine
>>> from sqlalchemy.orm import sessionmaker
>>> from delimiter import Delimiter
>>> engine = create_engine("sqlite:///handlers-example.db")
>>> quota = Delimiter(engine)
>>> quota.define_resource("storage.gb", project_max=100)
>>> @transactional(sessionmaker(engine))
... @guarded(quota, {"storage.gb": lambda size: size}, project="project", claim="claim")
... def create_volume(session, claim, project, size):
...     return dict(claim.resources)
>>> create_volume("acme", size=40)
{'storage.gb': 40}
"""

from delimiter.handlers.guarding import guarded
from delimiter.handlers.transacting import transactional

__all__ = ["guarded", "transactional"]
