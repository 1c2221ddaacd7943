#!/usr/bin/env python3
"""Compares our schemas, API table and bytes with the message specifications in kafka-python.

The wheel of kafka-python carries Apache Kafka's own message specifications. Three checks:

  schemas  every field of crates/chronik-protocol/schema has Kafka's name, type, order, versions,
           nullability, tag, default and ignorability, and no field is missing, except DEVIATIONS
  table    the versions we show are those that kafka-python saw on a Kafka 4.2 broker
  bytes    random messages of every version, printed by our encoder, are decoded completely by
           kafka-python and encoded to the same bytes

Usage: pip install -r requirements.txt, then python3 oracle.py. Exit status 0 means no difference.
"""

import pathlib
import re
import subprocess
import sys

import kafka.protocol.admin
import kafka.protocol.consumer
import kafka.protocol.metadata
import kafka.protocol.producer
from kafka.protocol.api_message import ApiMessage
from kafka.protocol.broker_version_data import BrokerVersionData
from kafka.protocol.schemas import load_json

WORKSPACE = pathlib.Path(__file__).resolve().parents[3]
SCHEMAS = WORKSPACE / "crates" / "chronik-protocol" / "schema"
BROKER = (4, 2)
SCALARS = {"int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
           "uint16": "u16", "uint32": "u32", "float64": "f64"}

# Field -> what our schema says differently, with the reason in the schema file; None: left out.
DEVIATIONS = {
    "ApiVersionsResponse.zk_migration_ready": None,
    "FetchResponse.responses.partitions.snapshot_id": None,
    "FetchResponse.responses.partitions.current_leader": {"ignorable": True},
    "FetchResponse.node_endpoints": {"ignorable": True},
    "ProduceResponse.responses.partition_responses.current_leader": {"ignorable": True},
    "ProduceResponse.node_endpoints": {"ignorable": True},
}


def snake_case(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def version_set(text, api):
    """The versions that `text` means, as far as the API has them."""
    if text == "none":
        return range(0)
    first, _, last = text.partition("-")
    if text.endswith("+"):
        first, last = text[:-1], api["max"]
    last = int(last if last != "" else first)
    return range(max(int(first), api["min"]), min(last, api["max"]) + 1)


def our_schema(path):
    """An API's `api` line and the facts of its fields, by message."""
    api, messages, message, parents = {}, {}, None, []
    for line in path.read_text().splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] == "api":
            options = dict(zip(words[3::2], words[4::2]))
            first, last = options["versions"].split("-")
            api = {"key": int(words[1]), "name": words[2], "min": int(first), "max": int(last),
                   "flexible": options["flexible"]}
        elif words[0] in ("request", "response"):
            message = messages.setdefault(api["name"] + words[0].capitalize(), {})
        else:
            depth = (len(line) - len(line.lstrip())) // 2
            name, kind, rest = words[0], words[1], words[2:]
            if kind in ("array", "struct"):
                kind, rest = f"{kind} {rest[0]}", rest[1:]
            parents = parents[:depth - 1] + [name]
            versions, rest = version_set(rest[0], api), rest[1:]
            option = lambda word: rest[rest.index(word) + 1] if word in rest else None
            nullable = option("nullable")
            message[".".join(parents)] = {
                "type": kind,
                "versions": versions,
                "nullable": version_set(nullable, api) if nullable else range(0),
                "tag": option("tag"),
                "default": option("default") or "natural",
                "ignorable": "ignorable" in rest,
            }
    return api, messages


def foreign_facts(fields, api, enclosing, prefix=""):
    """Kafka's facts about the fields, as far as they occur in our versions."""
    facts = {}
    for field in fields:
        both = set(version_set(field["versions"], api)) & set(enclosing)
        if not both:
            continue
        versions = range(min(both), max(both) + 1)
        path = prefix + snake_case(field["name"])
        kind = field["type"].removeprefix("[]")
        kind = SCALARS.get(kind, kind)
        if field["type"].startswith("[]"):
            kind = f"array {kind}"
        elif "fields" in field:
            kind = f"struct {kind}"
        nullable = set(version_set(field.get("nullableVersions", "none"), api)) & both
        default = str(field.get("default", "natural"))
        default = {"null": "natural", "0": "natural", "false": "natural", "": "natural"}.get(
            default, str(int(default, 0)) if default.startswith("0x") else default)
        facts[path] = {
            "type": kind,
            "versions": versions,
            "nullable": range(min(nullable), max(nullable) + 1) if nullable else range(0),
            "tag": str(field["tag"]) if "tag" in field else None,
            "default": default,
            "ignorable": str(field.get("ignorable", False)).lower() == "true",
        }
        facts.update(foreign_facts(field.get("fields", []), api, versions, path + "."))
    return facts


def schema_differences():
    for path in sorted(SCHEMAS.glob("*.wire")):
        api, messages = our_schema(path)
        for message, ours in messages.items():
            specification = load_json(message)
            whole = range(api["min"], api["max"] + 1)
            theirs = foreign_facts(specification["fields"], api, whole)
            for field in list(theirs):
                deviation = DEVIATIONS.get(f"{message}.{field}", {})
                if deviation is None:
                    theirs = {f: v for f, v in theirs.items()
                              if f != field and not f.startswith(field + ".")}
                elif field in theirs:
                    theirs[field].update(deviation)
            if list(ours) != list(theirs):
                yield f"{message}: fields {list(ours)}, expected {list(theirs)}"
                continue
            for field, facts in ours.items():
                expected = theirs[field]
                if facts["versions"] == whole:
                    # A field that is always there is never dropped.
                    expected["ignorable"] = facts["ignorable"]
                if facts["nullable"] and facts["default"] in ("natural", "empty"):
                    # Whether an absent field is null or empty does not reach the wire.
                    expected["default"] = facts["default"]
                if facts != expected:
                    yield f"{message}.{field}: {facts}, expected {expected}"
            flexible = specification["flexibleVersions"].removesuffix("+")
            if flexible != api["flexible"]:
                yield f"{message}: flexible {api['flexible']}, expected {flexible}"


def table_differences(lines):
    observed = BrokerVersionData(BROKER).api_versions
    for line in lines:
        if not line.startswith("api "):
            continue
        _, key, name, low, high, *_ = line.split()
        shown, expected = (int(low), int(high)), observed[int(key)]
        if shown != expected:
            yield f"{name}: we show {shown}, Kafka {BROKER} shows {expected}"


def message_classes():
    """kafka-python's message classes by side and API key."""
    classes, pending = {}, [ApiMessage]
    while pending:
        for subclass in pending.pop().__subclasses__():
            pending.append(subclass)
            if subclass.__dict__.get("_json"):
                classes[subclass.type, subclass.API_KEY] = subclass
    return classes


def byte_differences(lines):
    classes = message_classes()
    for line in lines:
        side, key, version, *body = line.split()
        if side == "api":
            continue
        ours = bytes.fromhex(body[0]) if body else b""
        cls = classes[side, int(key)]
        try:
            # Not cls.decode(): that of ApiVersionsResponse takes any error for a version 0 body.
            message = ApiMessage.decode.__func__(cls, ours, version=int(version))
            message._header = None  # encode() asks for it; decoding a bare body leaves it unset.
            theirs = bytes(message.encode(version=int(version)))
        except Exception as error:
            theirs = repr(error)
        if theirs != ours:
            shown = theirs if isinstance(theirs, str) else theirs.hex()
            yield f"{cls.name} version {version}: ours {ours.hex()}, theirs {shown}"


def main():
    command = ["cargo", "run", "--quiet", "-p", "chronik-protocol", "--features", "sample",
               "--example", "oracle_messages"]
    output = subprocess.run(command, cwd=WORKSPACE, check=True, stdout=subprocess.PIPE, text=True)
    lines = output.stdout.splitlines()
    failed = False
    checks = {"schemas": schema_differences(), "table": table_differences(lines),
              "bytes": byte_differences(lines)}
    for name, differences in checks.items():
        differences = list(differences)
        failed = failed or bool(differences)
        print(f"{name}: {len(differences)} differences")
        for difference in differences[:20]:
            print(f"  {difference}")
    apis = sum(line.startswith("api ") for line in lines)
    print(f"{apis} APIs, {len(lines) - apis} messages")
    return 1 if failed or apis == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
