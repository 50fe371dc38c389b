"""The ``nats`` transport: NATS JetStream. Needs the package nats-py, which only its files load."""
