"""What the tests of a service that uses Delimiter need: a quota of their own, time that moves, failures to order.

With pytest there is nothing to import: the fixtures ``delimiter_quota``, ``delimiter_clock``, ``delimiter_faults``,
``delimiter_aio_quota`` and ``delimiter_sandbox`` are there as soon as Delimiter is installed. Without pytest:

>>> from delimiter.testing import Sandbox
>>> with Sandbox() as sandbox:
...     sandbox.quota.define_resource("compute.vcpu", project_max=8)
...     held = sandbox.quota.reserve({"compute.vcpu": 8}, project="acme", expires_in=1800)
...     sandbox.clock.advance(1800)
...     sandbox.quota.usage(project="acme")["compute.vcpu"].used
0
"""

from delimiter.testing.claims import assert_claims_unchanged, assert_no_claims, fill
from delimiter.testing.clock import Clock
from delimiter.testing.faults import Faults
from delimiter.testing.sandbox import Sandbox

__all__ = ["Clock", "Faults", "Sandbox", "assert_claims_unchanged", "assert_no_claims", "fill"]
