"""Making a store's first nodes, and looking whether those that are there are ours."""

from __future__ import annotations

from delimiter.engines.zookeeper.ground import Ground
from delimiter.engines.zookeeper.layout import LAYOUT, decode
from delimiter.engines.zookeeper.multi import Multi
from delimiter.engines.zookeeper.session import Node
from delimiter.errors import Conflict, InvalidRequest, StoreUnavailable

__all__ = ["make_store"]


def make_store(ground: Ground, *, create: bool) -> None:
    """The store is there afterwards, or it is said why not. Safe when many processes start at once."""
    layout, session = ground.layout, ground.session
    root = session.read(layout.root)
    if root is None:
        session.catch_up(layout.root)
        root = session.read(layout.root)
    if root is not None and _is_ours(root, layout.root):
        return
    if not create:
        raise StoreUnavailable(
            f"there is no store at {layout.root}, and with create=False none is made; open it once with create=True",
            retryable=False,
        )
    above = layout.root.split("/")[1:-1]
    session.make("/" + "/".join(above[: number + 1]) for number in range(len(above)))
    multi = Multi()
    for path, data in layout.first_nodes().items():
        if path == layout.root and root is not None:
            multi.set(path, data, root.version)
        else:
            multi.create(path, data)
    try:
        session.commit(multi)
    except Conflict:
        # Another process was faster, or our server had not heard of it yet.
        root = session.read(layout.root)
        if root is None or not _is_ours(root, layout.root):
            raise


def _is_ours(root: Node, path: str) -> bool:
    """Whether there is a store; an empty node that somebody has made for one is none yet."""
    if not root.data and not root.children:
        return False
    if not root.data:
        raise InvalidRequest(
            f"the node {path} is in use by something else than Delimiter; name another path in the URL"
        )
    try:
        content = decode(root.data, path)
    except StoreUnavailable:
        content = {}
    if content.get("delimiter") != "store":
        raise InvalidRequest(
            f"the node {path} is in use by something else than Delimiter; name another path in the URL"
        )
    if content.get("layout") != LAYOUT:
        raise StoreUnavailable(
            f"the store at {path} has layout {content.get('layout')!r}, and this Delimiter knows {LAYOUT}:"
            " it was made by another version; upgrade the library",
            retryable=False,
        )
    return True
