"""Topics and rights as code for other tools: Terraform, Strimzi, Kafka's own scripts. Pure: text from plans."""
