"""All that knows Avro: the schemas, their fingerprints, and the codec of the envelopes."""
