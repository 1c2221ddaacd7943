"""Each codec, produced by one client and consumed by every other."""

import hashlib
import random

import confluent_kafka
import kafka

import kcat_suite

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
RECORDS = 500
TIMEOUT_SECONDS = 30


def values(codec, client):
    generator = random.Random(f"{codec}-{client}")
    return [b"%d-%s" % (number, b"z" * generator.randrange(300)) for number in range(RECORDS)]


def produce_kcat(broker, topic, codec, records):
    data = b"".join(record + b"\n" for record in records)
    kcat_suite.kcat(broker, "-P", "-t", topic, "-p", "0", "-z", codec, data=data)


def produce_confluent(broker, topic, codec, records):
    failures = []
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": broker.address, "compression.type": codec, "linger.ms": 5})
    for record in records:
        producer.produce(topic, record, partition=0,
                         on_delivery=lambda error, _: error and failures.append(error))
    left = producer.flush(TIMEOUT_SECONDS)
    assert left == 0 and not failures, (left, failures[:3])


def produce_kafka_python(broker, topic, codec, records):
    producer = kafka.KafkaProducer(
        bootstrap_servers=broker.address, acks="all",
        compression_type=None if codec == "none" else codec)
    sent = [producer.send(topic, record, partition=0) for record in records]
    offsets = [one.get(TIMEOUT_SECONDS).offset for one in sent]
    producer.close()
    assert offsets == list(range(len(records))), offsets[:10]


def consume_kcat(broker, topic):
    back = kcat_suite.kcat(broker, "-C", "-t", topic, "-p", "0", "-o", "beginning", "-e")
    return back.splitlines()


def consume_confluent(broker, topic):
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": broker.address, "group.id": "unused", "enable.auto.commit": False,
         "check.crcs": True})
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    found = []
    while len(found) < RECORDS:
        message = consumer.poll(TIMEOUT_SECONDS)
        assert message is not None and message.error() is None, message
        found.append(message.value())
    consumer.close()
    return found


def consume_kafka_python(broker, topic):
    partition = kafka.TopicPartition(topic, 0)
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=broker.address, auto_offset_reset="earliest", check_crcs=True,
        consumer_timeout_ms=TIMEOUT_SECONDS * 1_000)
    consumer.assign([partition])
    found = []
    for message in consumer:
        found.append(message.value)
        if len(found) == RECORDS:
            break
    consumer.close()
    return found


PRODUCERS = {
    "kcat": produce_kcat, "confluent": produce_confluent, "kafka-python": produce_kafka_python}
CONSUMERS = {
    "kcat": consume_kcat, "confluent": consume_confluent, "kafka-python": consume_kafka_python}


def cell(codec, name, produce):
    def case(broker):
        topic = f"matrix-{codec}-{name}"
        records = values(codec, name)
        produce(broker, topic, codec, records)
        expected = hashlib.sha256(b"\n".join(records)).hexdigest()
        for consumer, consume in CONSUMERS.items():
            back = hashlib.sha256(b"\n".join(consume(broker, topic))).hexdigest()
            assert back == expected, f"{consumer} reads something else"
    return case


def cases():
    """Name and function of every case."""
    return {
        f"{codec}[{name}]": cell(codec, name, produce)
        for codec in CODECS for name, produce in PRODUCERS.items()
    }
