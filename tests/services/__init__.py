"""Real servers for tests, on loopback: a Kafka broker and a PostgreSQL server."""
