"""Every pool keeps the contract."""

from __future__ import annotations

import pool_app
import pytest

from kantoku_kafka.avro.codec import AvroCodec
from kantoku_kafka.bindings import bind_pools, chosen_types
from kantoku_kafka.protocols import Codec, Executor
from kantoku_kafka.settings import ExecutorSettings, PoolKind
from kantoku_kafka.testing.contract import CodecContract, ExecutorContract


class TestPools(ExecutorContract):
    @pytest.fixture(params=PoolKind)
    def executor(self, request: pytest.FixtureRequest) -> Executor:
        kind: PoolKind = request.param
        app = pool_app.kan_async if kind is PoolKind.ASYNCIO else pool_app.kan
        reference = "pool_app:kan"
        types = chosen_types(app, None, kind, reference)
        return bind_pools(app, types, ExecutorSettings(concurrency=4), reference)["upper"].executor


class TestAvro(CodecContract):
    @pytest.fixture
    def codec(self) -> Codec:
        return AvroCodec()
