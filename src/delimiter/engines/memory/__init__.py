"""The memory engine: small and plainly right, the reference that all others are judged against.

It keeps claims and nothing else. There are no counters to go wrong: what a scope uses is the sum over the
claims that are live now, added up whenever somebody asks. A change is tried on a copy; a refused one leaves
no trace because its copy is thrown away. One lock makes every call a transaction. All of it costs time in
proportion to the claims held and ends with the process: it is for tests and for trying things out.
"""

from delimiter.engines.memory.engine import MemoryEngine, open_memory

__all__ = ["MemoryEngine", "open_memory"]
