"""Settings from files, the environment and the command line, each with its origin. Knows no client of Kafka."""
