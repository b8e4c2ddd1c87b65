"""What a signature costs, in microseconds of processor time a task: ``python -m benchmarks.signing``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from benchmarks.codec import COUNT, REPEATS
from kantoku_kafka import Ed25519Key, HmacKey, Kantoku, Seal, Task
from kantoku_kafka.job import Job, Partition
from kantoku_kafka.signing.guard import Guard
from kantoku_kafka.spawning import prepare

PAYLOADS = (100, 10_000)


def main() -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for size in PAYLOADS:
        for name, key in (("HMAC-SHA-256", HmacKey("h", bytes(32))), ("Ed25519", Ed25519Key("e", private=pem))):
            signing, checking = measures(Seal([key]), size)
            sys.stdout.write(f"{name:<13} {size:>6} bytes  sign {signing:6.1f} us  check {checking:6.1f} us\n")


def measures(seal: Seal, payload_bytes: int) -> tuple[float, float]:
    """To sign a task when it is spawned; to check it when it is received, with the second reading of its envelope."""
    plain, kan = Kantoku("bench"), Kantoku("bench", seal=seal)
    task = Task("echo", bytes(payload_bytes))
    message = prepare(kan, task)[1]
    guard = Guard.of(kan)
    assert guard is not None and message.value is not None
    job = Job(Partition(message.topic, 0, 1), 0, message.key, message.value, message.headers)
    job.read(kan.codec.peek_task)
    return _us(lambda: prepare(kan, task)) - _us(lambda: prepare(plain, task)), _us(lambda: guard.check(job))


def _us(work: Callable[[], object]) -> float:
    """Of the quickest of some repeats."""

    def once() -> float:
        started = time.process_time()
        for _ in range(COUNT):
            work()
        return time.process_time() - started

    return 1_000_000 * min(once() for _ in range(REPEATS)) / COUNT


if __name__ == "__main__":
    main()
