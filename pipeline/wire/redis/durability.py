"""Whether a Redis server keeps what it acknowledged.

With an append-only file it does, whatever ends the server. What a power failure takes is `appendfsync`'s business: `always` nothing,
`everysec` (its default) the last second, `no` what the system had not written yet.
"""

from __future__ import annotations

import redis
from redis.exceptions import RedisError

from pipeline.wire.errors import NotDurable, TransportError
from pipeline.wire.redis.connection import explain


def check_durability(client: redis.Redis, place: str) -> None:
    """Raises NotDurable where the server has no append-only file, or may evict the stream."""
    try:
        persistence, memory = client.info("persistence"), client.info("memory")
    except (RedisError, OSError) as error:
        found = explain(error, place)
        raise found if isinstance(found, TransportError) else error from None
    if not int(persistence.get("aof_enabled", 0)):
        raise NotDurable(place, "Redis keeps no append-only file", "start it with --appendonly yes")
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if int(memory.get("maxmemory", 0)) and policy.startswith("allkeys"):
        raise NotDurable(
            place,
            f"Redis evicts any key when its memory is full (maxmemory-policy {policy}), this stream too",
            "set noeviction or a volatile policy",
        )
