"""The suite that every engine must pass: a pytest class whose one fixture the implementer overrides.

    import pytest
    from delimiter.conformance import EngineConformance

    class TestMyEngine(EngineConformance):
        @pytest.fixture
        def engine(self):
            engine = open_mine("mine://…")     # on an empty store
            yield engine
            engine.close()

An engine that declares more has more to show: with ``Capability.SHARED`` override ``open_another`` (a second handle
on the same store) and ``store_url`` (for other processes); with ``Capability.CALLERS_TRANSACTION`` override
``database`` (an SQLAlchemy engine on the same store). It needs the extra ``conformance`` (pytest and Hypothesis).
"""

import pytest

pytest.register_assert_rewrite("delimiter.conformance")

from delimiter.conformance.adopting import AdoptionContract  # noqa: E402 - asserts must be rewritten first
from delimiter.conformance.arriving import ArrivalContract  # noqa: E402
from delimiter.conformance.batches import BatchContract  # noqa: E402
from delimiter.conformance.capabilities import CapabilityContract  # noqa: E402
from delimiter.conformance.changes import ChangeContract  # noqa: E402
from delimiter.conformance.claiming import ClaimingContract  # noqa: E402
from delimiter.conformance.editing import EditContract  # noqa: E402
from delimiter.conformance.existing import ExistingContract  # noqa: E402
from delimiter.conformance.explaining import ExplanationContract  # noqa: E402
from delimiter.conformance.following import FollowerContract  # noqa: E402
from delimiter.conformance.identity import IdentityContract  # noqa: E402
from delimiter.conformance.input import InputContract  # noqa: E402
from delimiter.conformance.limits import LimitContract  # noqa: E402
from delimiter.conformance.lists import ListContract  # noqa: E402
from delimiter.conformance.machine import MachineContract  # noqa: E402
from delimiter.conformance.moves import MoveContract  # noqa: E402
from delimiter.conformance.overbooking import OverbookingContract  # noqa: E402
from delimiter.conformance.processes import ProcessContract  # noqa: E402
from delimiter.conformance.projects import ProjectContract  # noqa: E402
from delimiter.conformance.races import RaceContract  # noqa: E402
from delimiter.conformance.reservations import ReservationContract  # noqa: E402
from delimiter.conformance.rule_races import RuleRaceContract  # noqa: E402
from delimiter.conformance.transaction_races import TransactionRaceContract  # noqa: E402
from delimiter.conformance.tree_races import TreeRaceContract  # noqa: E402
from delimiter.conformance.trees import TreeContract  # noqa: E402
from delimiter.conformance.watching import EventContract  # noqa: E402

__all__ = ["EngineConformance"]


class EngineConformance(
    LimitContract,
    ClaimingContract,
    ListContract,
    IdentityContract,
    ReservationContract,
    TreeContract,
    ChangeContract,
    ProjectContract,
    MoveContract,
    OverbookingContract,
    EditContract,
    ExistingContract,
    AdoptionContract,
    EventContract,
    FollowerContract,
    ExplanationContract,
    InputContract,
    BatchContract,
    ArrivalContract,
    CapabilityContract,
    RaceContract,
    RuleRaceContract,
    TreeRaceContract,
    TransactionRaceContract,
    ProcessContract,
    MachineContract,
):
    """Everything that the interface says of an engine. Override the fixture ``engine``."""
