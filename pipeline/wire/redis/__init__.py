"""The ``redis`` transport: Redis Streams. Needs the package redis, which only its files load."""
