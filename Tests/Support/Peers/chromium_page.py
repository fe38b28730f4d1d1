"""Loads a page in headless Chromium and prints what the page's own checks say: `document.body.dataset.checks`.

Usage: chromium_page.py URL [SPKI]; SPKI is the hash of a certificate's key that is trusted although nobody vouches for it. The DevTools protocol tells when the checks are done; --dump-dom and --virtual-time-budget
do not wait for WebSockets.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile

from websockets.sync.client import connect

WAIT = """new Promise(done => {
    const look = () => document.body?.dataset.checks ? done(document.body.dataset.checks) : setTimeout(look, 20);
    look();
})"""
TIMEOUT = 30


def devtools_address(process):
    """Chromium names it on standard error."""
    for line in process.stderr:
        if "DevTools listening on " in line:
            return line.split("DevTools listening on ")[1].strip()
    sys.exit("chromium ended before it said where DevTools listens")


class Tab:
    """A page of the browser."""

    numbers = itertools.count(1)

    def __init__(self, browser, url):
        self.browser = browser
        self.session = None
        self.target = self.call("Target.createTarget", url=url)["result"]["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=self.target, flatten=True)["result"]["sessionId"]

    def call(self, method, **parameters):
        number = next(self.numbers)
        request = {"id": number, "method": method, "params": parameters}
        if self.session:
            request["sessionId"] = self.session
        self.browser.send(json.dumps(request))
        while True:
            answer = json.loads(self.browser.recv(timeout=TIMEOUT))
            if answer.get("id") == number:
                return answer

    def wait(self, expression):
        """The value of a promise in the page."""
        # While the page replaces about:blank its context goes, and the question is asked again of the next one.
        for _ in range(10):
            answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
            if "result" in answer and "value" in answer["result"]["result"]:
                return answer["result"]["result"]["value"]
        sys.exit(f"the page never settled: {answer}")

    def close(self):
        target, self.session = self.target, None
        self.call("Target.closeTarget", targetId=target)


def run(drive):
    """Starts a browser, and prints what `drive` makes of its DevTools connection."""
    # A stuck browser must not stop the tests: the alarm ends this process, and `finally` below the browser.
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("no answer from chromium in time"))
    signal.alarm(2 * TIMEOUT)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
            "--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={profile}", "about:blank"]
        command[1:1] = [f"--ignore-certificate-errors-spki-list={hash}" for hash in sys.argv[2:]]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            with connect(devtools_address(process), max_size=None) as browser:
                print(drive(browser))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


if __name__ == "__main__":
    run(lambda browser: Tab(browser, sys.argv[1]).wait(WAIT))
