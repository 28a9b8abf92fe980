"""A look at the newest records of a topic, for ``netpredict doctor``; nobody's offsets move."""

from __future__ import annotations

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from netpredict.config import KafkaConfig
from netpredict.errors import DataError
from netpredict.ingest.kafka import new_client, unavailable
from netpredict.ingest.kafka_access import client_access

POLL_MS = 3000


def newest_records(config: KafkaConfig, topic: str, most: int) -> list[tuple[bytes | None, bytes | None]]:
    """Key and value of some of the newest records of each partition of a topic, outside every group.

    SourceUnavailable when Kafka cannot be asked, DataError when the topic is not there or may not be read.
    """
    try:
        settings = client_access(config) | {"bootstrap_servers": config.bootstrap_servers, "group_id": None}
        consumer = new_client(KafkaConsumer, settings | {"bootstrap_timeout_ms": 5000, "metrics_enabled": False})
    except (KafkaError, OSError) as error:
        raise unavailable(config, config.bootstrap_servers, error) from error
    try:
        numbers = consumer.partitions_for_topic(topic)
        if not numbers:
            raise DataError(f"there is no topic {topic}, or we may not describe it")
        places = [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(places)
        found = 0
        for place, end in consumer.end_offsets(places).items():
            begin = max(consumer.beginning_offsets([place])[place], end - most)
            found += end - begin
            consumer.seek(place, begin)
        polled = consumer.poll(timeout_ms=POLL_MS) if found else {}
        return [(record.key, record.value) for records in polled.values() for record in records]
    except KafkaError as error:
        raise DataError(f"{topic} cannot be read: {type(error).__name__}: {error}") from error
    finally:
        consumer.close()
