"""The contract of every replaceable part, as tests: subclass, say how your part is made, let pytest collect it.

::

    from kantoku_kafka.testing.contract import OutputsContract

    class TestSqlite(OutputsContract):
        @pytest.fixture
        def rig(self, tmp_path):
            outputs = SqliteOutputs(tmp_path / "results.db")
            return OutputsRig(outputs, commit=lambda: None, read=outputs.all)

Inputs and Transaction belong together, and so do the Outputs and Events that share the Transaction:
:class:`LogContract` checks all four. Nothing here knows Kafka.
"""

from __future__ import annotations

from kantoku_kafka.testing.contract.log import LogContract, LogRig, Member
from kantoku_kafka.testing.contract.parts import CodecContract, ExecutorContract, OutputsContract, OutputsRig

__all__ = ["CodecContract", "ExecutorContract", "LogContract", "LogRig", "Member", "OutputsContract", "OutputsRig"]
