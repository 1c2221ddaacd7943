"""Starts the server under test on free loopback ports and stops it again."""

import json
import pathlib
import subprocess
import tempfile
import time

READY_SECONDS_MAX = 30
STOP_SECONDS_MAX = 30


class Broker:
    """A running server with its own data directory."""

    def __init__(self, binary, settings=()):
        self._directory = tempfile.TemporaryDirectory(prefix="chronik-compat-")
        self._log_path = pathlib.Path(self._directory.name) / "server.log"
        command = [
            binary, "--kafka-port", "0", "--http-port", "0", "--node-id", "0",
            "--data-dir", f"{self._directory.name}/data", "--log-format", "json",
        ]
        for setting in settings:
            command += ["--set", setting]
        with open(self._log_path, "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(command + ["standalone"], stderr=log, stdout=log)
        self.address = self._wait_until_ready()

    def _wait_until_ready(self):
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline:
            for event in self.events():
                if event.get("message") == "ready":
                    return event["kafka"]
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"the server did not get ready:\n{self._log_path.read_text()}")

    def events(self):
        """Log lines as flat dictionaries."""
        found = []
        for line in self._log_path.read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            found.append({**event, **event.get("fields", {})})
        return found

    def problems(self):
        """Lines at WARN or ERROR: a healthy run has none."""
        return [event for event in self.events() if event.get("level") in ("WARN", "ERROR")]

    def stop(self):
        """Stops the server cleanly; a stop that is not clean is a failure."""
        self._process.terminate()
        code = self._process.wait(STOP_SECONDS_MAX)
        problems = self.problems()
        self._directory.cleanup()
        if code != 0:
            raise RuntimeError(f"the server ended with code {code}")
        if problems:
            raise RuntimeError(f"the server complained: {problems}")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:
            self._process.kill()
            self._process.wait()
            self._directory.cleanup()
