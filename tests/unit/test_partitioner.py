"""The partition of a key: librdkafka's murmur2, ours, and what the Java client says, are one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantoku_kafka.kafka import partitioner

# org.apache.kafka.common.utils.UtilsTest.testMurmur2: key and the signed hash.
JAVA = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("key", "hashed"), JAVA)
@pytest.mark.parametrize("partitions", [1, 3, 12, 2**31 - 1])
def test_the_java_clients_vectors(key: bytes, hashed: int, partitions: int) -> None:
    expected = (hashed & 0x7FFFFFFF) % partitions
    assert partitioner.python_partition_of(key, partitions) == expected
    assert partitioner.partition_of(key, partitions) == expected


@given(st.binary(max_size=200), st.integers(1, 10_000))
def test_native_and_python_agree(key: bytes, partitions: int) -> None:
    partition = partitioner.partition_of(key, partitions)
    assert partition == partitioner.python_partition_of(key, partitions)
    assert 0 <= partition < partitions


def test_the_native_one_is_found_here() -> None:
    assert partitioner.partitioner() is not partitioner.python_partition_of


def test_without_the_native_one_the_python_one_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no such library")

    monkeypatch.setattr("ctypes.CDLL", refuse)
    assert partitioner.partitioner.__wrapped__() is partitioner.python_partition_of
