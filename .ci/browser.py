"""A browser without a window, for the scripts that play pages."""
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

GUARD = 60  # seconds: no wait takes that long, except on a machine that hangs


def skip(why):
    print(f"skipped: {why}")
    sys.exit(0)


def need_a_browser(what):
    for program in ("chromium", "chromedriver"):
        if not shutil.which(program):
            skip(f"no {program} here, so {what} is not tried")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Browser:
    """A browser that is driven by the WebDriver protocol (W3C)."""

    said = "document.body.textContent"  # where the page reports what is wrong

    def __init__(self, width, height, dark=False, phone=False):
        self.port = free_port()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.driver = subprocess.Popen(["chromedriver", f"--port={self.port}"], **quiet)
        until_true(self.answers, "chromedriver starts")
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        arguments.append(f"--window-size={width},{height}")
        if dark:
            arguments.append("--blink-settings=preferredColorScheme=0")
        options = {"args": arguments}
        if phone:
            metrics = {"width": width, "height": height, "pixelRatio": 2}
            options["mobileEmulation"] = {"deviceMetrics": metrics}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"},
                  "acceptInsecureCerts": True}
        self.path = ""
        made = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.path = f"/session/{made['sessionId']}"

    def answers(self):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=5)
        except OSError:
            return False

    def call(self, method, path, body=None):
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{self.path}{path}", data=data, method=method)
        try:
            return json.load(urllib.request.urlopen(request, timeout=GUARD))["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:600]) from None

    def run(self, script, *arguments):
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def value(self, expression):
        return self.run(f"return {expression}")

    def click(self, selector):
        """With the mouse, as a person does: what is covered or hidden can't be clicked."""
        found = self.call("POST", "/element", {"using": "css selector", "value": selector})
        self.call("POST", f"/element/{list(found.values())[0]}/click")

    def press(self, keys):
        """Keys, one after the other, to whatever has the focus."""
        for key in keys:
            up_and_down = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
            self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": up_and_down}]})

    def wait(self, expression, what):
        until_true(lambda: self.value(expression), lambda: f"{what}; the page says: {self.value(self.said)!r}")

    def open(self, url):
        # Another hash alone is no new page.
        self.call("POST", "/url", {"url": "about:blank"})
        self.call("POST", "/url", {"url": url})

    def errors(self):
        return [line["message"] for line in self.call("POST", "/se/log", {"type": "browser"})]

    def picture(self, name):
        if len(sys.argv) > 2:
            with open(os.path.join(sys.argv[2], name), "wb") as file:
                file.write(base64.b64decode(self.call("GET", "/screenshot")))

    def quit(self):
        try:
            self.call("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait()


KEYS = {"Home": "\ue011", "Right": "\ue014", "Left": "\ue012", "Tab": "\ue004", "Shift": "\ue008"}


def until_true(condition, what):
    end = time.monotonic() + GUARD
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"never: {what() if callable(what) else what}")
        time.sleep(0.02)


def same(one, other, what):
    assert one == other, f"{what}: {one!r} is not {other!r}"
