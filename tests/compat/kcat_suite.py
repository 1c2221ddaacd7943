"""kcat (librdkafka) as people use it from a shell: every case compares what comes out."""

import hashlib
import random
import subprocess

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
TIMEOUT_SECONDS = 60


def kcat(broker, *arguments, data=None):
    """Runs kcat and returns its standard output; a failure is an error."""
    command = ["kcat", "-b", broker.address, "-q", *arguments]
    done = subprocess.run(
        command, input=data, capture_output=True, timeout=TIMEOUT_SECONDS, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.decode()}")
    return done.stdout


def lines(count, seed):
    """Records of varying size as kcat reads them: one per line."""
    generator = random.Random(seed)
    return b"".join(
        b"%d-%s\n" % (number, b"x" * generator.randrange(200)) for number in range(count))


def digest(data):
    return hashlib.sha256(data).hexdigest()


def list_names_the_broker_and_its_topics(broker):
    kcat(broker, "-P", "-t", "listed", "-p", "0", data=b"one\n")
    text = kcat(broker, "-L").decode()
    assert broker.address.split(":")[1] in text, text
    assert 'topic "listed" with 4 partitions' in text, text


def round_trip(codec):
    def case(broker):
        data = lines(5_000, seed=codec)
        topic = f"codec-{codec}"
        kcat(broker, "-P", "-t", topic, "-p", "0", "-z", codec, data=data)
        back = kcat(broker, "-C", "-t", topic, "-p", "0", "-o", "beginning", "-e")
        assert digest(back) == digest(data)
    return case


def acks(level):
    def case(broker):
        data = lines(1_000, seed=level)
        topic = f"acks-{level}"
        # A first record creates the topic; acks=0 must not race its creation.
        kcat(broker, "-P", "-t", topic, "-p", "0", data=b"first\n")
        kcat(broker, "-P", "-t", topic, "-p", "0", "-X", f"acks={level}", data=data)
        back = kcat(broker, "-C", "-t", topic, "-p", "0", "-o", "1", "-c", "1000")
        assert digest(back) == digest(data)
    return case


def idempotent_producer(broker):
    data = lines(20_000, seed="idempotent")
    kcat(broker, "-P", "-t", "idempotent", "-p", "0", "-X", "enable.idempotence=true", data=data)
    back = kcat(broker, "-C", "-t", "idempotent", "-p", "0", "-o", "beginning", "-e")
    assert digest(back) == digest(data)


def offsets_from_the_end_and_the_middle(broker):
    kcat(broker, "-P", "-t", "offsets", "-p", "1", data=b"".join(b"%d\n" % n for n in range(100)))
    consume = ("-C", "-t", "offsets", "-p", "1", "-e")
    assert kcat(broker, *consume, "-o", "-3") == b"97\n98\n99\n"
    assert kcat(broker, *consume, "-o", "95") == b"95\n96\n97\n98\n99\n"
    assert kcat(broker, *consume, "-o", "end") == b""


def keys_headers_and_tombstones(broker):
    kcat(broker, "-P", "-t", "keyed", "-p", "0", "-K", ":", "-Z", "-H", "a=1", "-H", "a=2",
         data=b"k1:v1\nk2:\n")
    text = kcat(broker, "-C", "-t", "keyed", "-p", "0", "-o", "beginning", "-e",
                "-f", "%k=%S=%h\n")
    assert text == b"k1=2=a=1,a=2\nk2=-1=a=1,a=2\n", text


def query_offset_by_time(broker):
    kcat(broker, "-P", "-t", "timed", "-p", "0", data=b"a\nb\nc\n")
    stamps = kcat(broker, "-C", "-t", "timed", "-p", "0", "-o", "beginning", "-e", "-f", "%T\n")
    first = int(stamps.split()[0])
    answer = kcat(broker, "-Q", "-t", f"timed:0:{first}").decode()
    assert answer.strip() == "timed [0] offset 0", answer
    # librdkafka says -1 (end) for a time behind the last record.
    answer = kcat(broker, "-Q", "-t", f"timed:0:{first + 3_600_000}").decode()
    assert answer.strip() == "timed [0] offset -1", answer


def all_partitions_in_one_consumer(broker):
    for partition in range(4):
        kcat(broker, "-P", "-t", "spread", "-p", str(partition), data=b"%d\n" % partition * 50)
    back = kcat(broker, "-C", "-t", "spread", "-o", "beginning", "-e")
    assert sorted(back.split()) == sorted(b"0123"[n:n + 1] for n in range(4) for _ in range(50))


def large_records(broker):
    record = b"y" * 900_000
    kcat(broker, "-P", "-t", "large", "-p", "0", data=record + b"\n" + record + b"\n")
    back = kcat(broker, "-C", "-t", "large", "-p", "0", "-o", "beginning", "-e")
    assert digest(back) == digest(record + b"\n" + record + b"\n")


def cases():
    """Name and function of every case."""
    plain = [
        list_names_the_broker_and_its_topics,
        idempotent_producer,
        offsets_from_the_end_and_the_middle,
        keys_headers_and_tombstones,
        query_offset_by_time,
        all_partitions_in_one_consumer,
        large_records,
    ]
    found = {case.__name__: case for case in plain}
    found.update({f"round_trip[{codec}]": round_trip(codec) for codec in CODECS})
    found.update({f"acks[{level}]": acks(level) for level in ("0", "1", "all")})
    return found
