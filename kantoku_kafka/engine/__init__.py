"""The executor's core: window, scheduler, checkpoint and the loop. It knows neither Kafka nor Avro."""
