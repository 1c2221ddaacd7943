"""Runs client suites against a server binary: python3 run.py SERVER RESULTS.json [SUITE...].

Own suites (kcat, codecs) must pass completely. Foreign suites have an allow list of tests under
allow/, which may only grow; a test on it that fails is tried once more, because some of these
tests race themselves on a fast server, and then fails the run.
"""

import datetime
import json
import pathlib
import sys
import tempfile
import time
import traceback

import codec_suite
import foreign_suites
import kcat_suite
from broker import Broker

HERE = pathlib.Path(__file__).parent
OWN = {"kcat": kcat_suite, "codecs": codec_suite}
SETTINGS = {"rdkafka": ["topic.num_partitions=3"]}
DEFAULT_SETTINGS = ["topic.num_partitions=4"]


def run_own(suite, broker):
    outcomes = {}
    for name, case in suite.cases().items():
        try:
            case(broker)
            outcomes[name] = True
        except Exception:  # A case may fail in any way; all of them are reported.
            traceback.print_exc()
            outcomes[name] = False
    return outcomes


def run_foreign(name, broker):
    listed = (HERE / "allow" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    allowed = [line for line in listed if line and not line.startswith("#")]
    outcomes = {}
    to_run = allowed
    for attempt in ("first", "second"):
        with tempfile.TemporaryDirectory(prefix="chronik-suite-") as scratch:
            found, output = foreign_suites.SUITES[name](broker, pathlib.Path(scratch), to_run)
        outcomes.update(found)
        to_run = [test for test in allowed if not outcomes.get(test)]
        if not to_run:
            break
        print(f"{attempt} try of {name}: {len(to_run)} did not pass: {to_run}\n{output[-4000:]}")
    return {test: outcomes.get(test, False) for test in allowed}


def main(server, results_path, names):
    results = []
    for name in names or [*OWN, *foreign_suites.SUITES]:
        started = time.monotonic()
        with Broker(server, SETTINGS.get(name, DEFAULT_SETTINGS)) as broker:
            outcomes = run_own(OWN[name], broker) if name in OWN else run_foreign(name, broker)
        failed = sorted(test for test, passed in outcomes.items() if not passed)
        seconds = time.monotonic() - started
        print(f"{name}: {len(outcomes) - len(failed)} of {len(outcomes)} in {seconds:.1f} s")
        results.append({
            "suite": name, "passed": len(outcomes) - len(failed), "failed": failed,
            "date": datetime.date.today().isoformat(),
        })
    pathlib.Path(results_path).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if any(not result["passed"] for result in results):
        sys.exit("a suite ran no test: its prerequisites are missing")
    broken = {result["suite"]: result["failed"] for result in results if result["failed"]}
    if broken:
        sys.exit(f"client suites failed: {json.dumps(broken)}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
