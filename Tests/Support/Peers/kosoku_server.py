"""Runs kosoku as a fuzzing server, a client's test driver against it, and judges the report.

Usage: kosoku_server.py CLIENT SECONDS COUNT PATTERN ...; CLIENT, with arguments of its own, gets the server's URL as the last. A pattern that begins with - leaves
its cases out; there must be COUNT of them.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import threading

from kosoku_report import judge


def main():
    client, seconds, expected, *patterns = sys.argv[1:]
    chosen = [word for text in patterns for word in (("-x", text[1:]) if text.startswith("-") else ("-i", text))]
    with tempfile.TemporaryDirectory() as folder:
        kosoku = pathlib.Path(sys.executable).parent / "kosoku"
        server = subprocess.Popen(
            [kosoku, "-m", "fuzzingserver", *chosen, "-o", folder, "127.0.0.1:0"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
            text=True)
        said = []
        try:
            address = server.stderr.readline().split()[-1]
            reader = threading.Thread(target=lambda: said.extend(server.stderr))
            reader.start()
            run = subprocess.run([*client.split(), address], capture_output=True, text=True, timeout=float(seconds))
            server.wait(timeout=20)
        finally:
            server.kill()
            server.wait()
        reader.join()
        index = pathlib.Path(folder) / "index.json"
        if run.returncode != 0 or not index.exists():
            sys.exit(f"the client ended with {run.returncode}: {run.stdout[:1000]}{run.stderr[:1000]}; kosoku: {''.join(said)[-1000:]}")
        results = next(iter(json.loads(index.read_text()).values()))
    wrong = {case: result for case, result in results.items() if not judge(case, result)}
    for case, result in sorted(wrong.items()):
        print(case, result["behavior"], result["behaviorClose"])
    informational = sum(result["behavior"] == "INFORMATIONAL" for result in results.values())
    print(f"{len(results)} cases, {informational} informational, {len(wrong)} not as they must be")
    if wrong or len(results) != int(expected):
        sys.exit(1)


main()
