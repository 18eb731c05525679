"""Headless Chromium, spoken to over its debugging pipe: pages are opened, pointed at and clicked; no tests here."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 90.0
"""Seconds that an answer may take; a loaded machine is slow to start a browser."""


def program() -> str | None:
    """The browser on this machine, if there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page of a browser. `errors` is all that the page or the browser complains about."""

    def __init__(self, read: int, write: int) -> None:
        self.read, self.write = read, write
        self.rest, self.last, self.session = b"", 0, ""
        self.errors: list[str] = []
        self.loaded = False
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **values: Any) -> dict[str, Any]:
        """The answer to one command."""
        self.last += 1
        question: dict[str, Any] = {"id": self.last, "method": method, "params": values}
        question |= {"sessionId": self.session} if self.session else {}
        os.write(self.write, json.dumps(question).encode() + b"\0")
        while True:
            heard = self.hear()
            if heard.get("id") == self.last:
                assert "error" not in heard, heard
                return heard["result"]

    def hear(self) -> dict[str, Any]:
        """The next message; what is an event is taken note of."""
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            self.rest += os.read(self.read, 2**20)
        text, _, self.rest = self.rest.partition(b"\0")
        heard: dict[str, Any] = json.loads(text)
        self.note(heard.get("method", ""), heard.get("params", {}))
        return heard

    def note(self, event: str, values: dict[str, Any]) -> None:
        """Take note of what the browser tells unasked."""
        self.loaded |= event == "Page.loadEventFired"
        if event == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.errors.append(values["entry"]["text"])
        if event in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.errors.append(json.dumps(values))

    def open(self, page: Path | str, width: int = 1180, height: int = 900) -> None:
        """Open a file, or an address, and wait until all of it is there."""
        self.errors, self.loaded = [], False
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.ask("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        while not self.loaded:
            self.hear()

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is worth on the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Return when a JavaScript expression has become true."""
        deadline = time.monotonic() + PATIENCE
        while not self.value(expression):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.1)

    def screenshot(self, file: Path) -> None:
        """Write what is seen now as a PNG."""
        file.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))

    def point_at(self, selector: str) -> tuple[float, float]:
        """Bring an element into view and move the mouse to its middle."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{found}.scrollIntoView({{block: 'center'}})")
        x, y = self.value(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({found}.getBoundingClientRect())")
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        return x, y

    def click(self, selector: str) -> None:
        """Press and release the mouse on an element."""
        x, y = self.point_at(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


@contextlib.contextmanager
def browser(path: str) -> Iterator[Browser]:
    """A browser with a page of its own; it and its files are gone afterwards."""
    (to_it, write), (read, from_it) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        options = f"--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir={home}"
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" {options} --remote-debugging-pipe about:blank 3<&{to_it} 4>&{from_it}', path],
            pass_fds=(to_it, from_it), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        os.close(to_it)
        os.close(from_it)
        try:
            yield Browser(read, write)
        finally:
            os.close(write)  # which ends it
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()
            os.close(read)
