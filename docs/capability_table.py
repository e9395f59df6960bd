"""The table of what each engine can do, from what the engines declare. (Opening a store does no I/O.)"""

from delimiter.engine import ENGINES, Capability, OpenOptions, open_engine

#: A URL for each scheme, of a store that nobody asks anything.
_URLS = {
    "memory": "memory://",
    "sqlite": "sqlite:///nowhere.db",
    "postgresql": "postgresql+psycopg://nobody@localhost/nowhere",
    "mysql": "mysql+pymysql://nobody@localhost/nowhere",
    "mariadb": "mariadb+pymysql://nobody@localhost/nowhere",
    "zookeeper": "zookeeper://localhost/nowhere",
}


def capability_table() -> str:
    """In Markdown: a row for each capability, a column for each scheme that a store's URL may begin with."""
    declared = {}
    for scheme in ENGINES:
        engine = open_engine(_URLS[scheme], OpenOptions(create=False))
        declared[scheme] = engine.capabilities
        engine.close()
    rows = [["capability", *(f"`{scheme}://`" for scheme in ENGINES)], ["---", *(":-:" for _ in ENGINES)]]
    rows += [
        [f"`Capability.{capability.name}`", *("yes" if capability in declared[s] else "–" for s in ENGINES)]
        for capability in Capability
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
