"""The opponents: what a good engineer writes by hand on confluent-kafka and fastavro.

    python -m benchmarks.raw exactly-once  -b HOST:PORT --topic IN --results OUT --group G
    python -m benchmarks.raw at-least-once -b HOST:PORT --topic IN --results OUT --group G
    python -m benchmarks.raw spawn         -b HOST:PORT --topic IN --tasks N
    python -m benchmarks.raw echo          -b HOST:PORT --topic IN --results OUT --samples N

The first two are executors: one transaction a batch, or flush and commit a batch. `spawn` has N tasks
acknowledged; `echo` sends one task at a time and waits for its result. Nothing here imports `kantoku_kafka`.
`--set consumer.KEY=VALUE` and `--set producer.KEY=VALUE` try another tuning.
"""
