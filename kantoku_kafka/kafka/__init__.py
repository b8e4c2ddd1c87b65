"""All that knows librdkafka."""
