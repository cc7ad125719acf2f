"""Failed requests are counted for the fault that may have caused them."""

from __future__ import annotations

from lapwing.load.record import Exchange
from tests.chaos.plan import Fault
from tests.chaos.record import Period, Record


def test_failure_is_counted_for_the_last_fault_before_it() -> None:
    record = Record()
    record.begin(Period(1, Fault.ENVOYS_KILLED, began=0.0, injected_at=5.0))
    record.begin(Period(2, Fault.ENVOY_KILLED, began=8.0, injected_at=10.0))
    for began, ended in ((5.4, 5.5), (9.0, 10.1), (10.1, 10.2), (13.0, 13.1)):
        record.add(Exchange("new", began, ended=ended, failure="refused"))
    totals = {fault: (t.failed, round(t.outage, 1)) for fault, t in record.totals.items()}
    assert totals == {Fault.ENVOYS_KILLED: (2, 8.0), Fault.ENVOY_KILLED: (2, 0.1)}
    assert record.unexcused == []
