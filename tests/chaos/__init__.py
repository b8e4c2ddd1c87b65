"""Breaks Kafka and executors on purpose, by a schedule drawn from a seed; the topics tell what became of it."""
