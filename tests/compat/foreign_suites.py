"""Integration tests that client projects wrote for real Kafka, run against this server.

They are unpacked from their packages into a scratch directory and never kept. Each returns the
outcome of every test by name; the allow list says which must pass.
"""

import os
import pathlib
import re
import subprocess
import sys
import tarfile
import urllib.request

KAFKA_PYTHON = "kafka-python==3.0.12"
RDKAFKA_VERSION = "0.39.0"
TEST_SECONDS_MAX = 40
SUITE_SECONDS_MAX = 900


def run(command, directory, environment, seconds=SUITE_SECONDS_MAX):
    """Runs a command and returns its output; its exit code is judged by the caller."""
    done = subprocess.run(
        command, cwd=directory, env={**os.environ, **environment}, timeout=seconds,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout


def unpack_kafka_python(scratch):
    """The source archive, made importable: two files of the project's repository are not in it."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
         KAFKA_PYTHON], cwd=scratch, check=True)
    archive = next(scratch.glob("kafka_python-*.tar.gz"))
    with tarfile.open(archive) as packed:
        packed.extractall(scratch, filter="data")
    directory = scratch / archive.name.removesuffix(".tar.gz")
    (directory / "test" / "__init__.py").touch()
    (directory / "test" / "service.py").write_text(
        "class ExternalService:\n"
        "    def __init__(self, host, port):\n"
        "        self.host, self.port = host, port\n\n"
        "    def open(self):\n        pass\n\n"
        "    def close(self):\n        pass\n\n\n"
        "class SpawnedService:\n    pass\n")
    (directory / "servers" / "4.2.0" / "kafka-bin").mkdir(parents=True)
    return directory


def kafka_python(broker, scratch, allowed):
    """The producer and consumer files, without what needs groups or transactions."""
    directory = unpack_kafka_python(scratch)
    files = [f"test/integration/test_{name}_integration.py" for name in ("producer", "consumer")]
    output = run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-W", "ignore", "-p", "no:cacheprovider",
         "--timeout", str(TEST_SECONDS_MAX), "--timeout-method", "signal",
         *[f"test/integration/{name}" for name in allowed]] if allowed else
        [sys.executable, "-m", "pytest", "-q", "-rA", "-W", "ignore", *files],
        directory,
        {"KAFKA_URI": f"kafka://{broker.address}", "KAFKA_VERSION": "4.2.0",
         "PYTHONPATH": str(directory)})
    outcomes = {}
    for verdict, name in re.findall(r"^(PASSED|FAILED|ERROR) test/integration/(\S+)", output, re.M):
        outcomes[name] = verdict == "PASSED"
    return outcomes, output


def rdkafka(broker, scratch, allowed):
    """rust-rdkafka's producers and metadata. Its tests name port 9092 in two places; the copy
    gets the port of the server under test instead."""
    url = f"https://static.crates.io/crates/rdkafka/rdkafka-{RDKAFKA_VERSION}.crate"
    archive = scratch / "rdkafka.crate"
    urllib.request.urlretrieve(url, archive)
    with tarfile.open(archive) as packed:
        packed.extractall(scratch, filter="data")
    directory = scratch / f"rdkafka-{RDKAFKA_VERSION}"
    replace(directory / "tests" / "test_high_producers.rs",
            '"bootstrap.servers", "localhost")',
            '"bootstrap.servers", std::env::var("KAFKA_HOST").unwrap())')
    port = broker.address.split(":")[1]
    replace(directory / "tests" / "test_metadata.rs",
            "broker_metadata[0].port(), 9092", f"broker_metadata[0].port(), {port}")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")).absolute() / "compat-rdkafka"
    outcomes, outputs = {}, []
    for file in ("test_high_producers", "test_low_producers", "test_metadata"):
        names = [name.split("::", 1)[1] for name in allowed if name.startswith(f"{file}::")]
        output = run(
            ["cargo", "test", "--quiet", "--test", file, "--", "--exact", *names,
             "--format", "pretty"] if names else ["cargo", "test", "--test", file],
            directory,
            {"KAFKA_HOST": broker.address, "KAFKA_VERSION": "4.0.0",
             "CARGO_TARGET_DIR": str(target)})
        outputs.append(output)
        for name, verdict in re.findall(r"^test (\S+) \.\.\. (ok|FAILED)", output, re.M):
            outcomes[f"{file}::{name}"] = verdict == "ok"
    return outcomes, "\n".join(outputs)


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path.name} no longer holds {old!r}"
    path.write_text(text.replace(old, new), encoding="utf-8")


SUITES = {"kafka_python": kafka_python, "rdkafka": rdkafka}
