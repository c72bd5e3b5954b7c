"""A real Chromium without a window, driven by W3C WebDriver over plain HTTP."""

import base64
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--hide-scrollbars", "--disable-search-engine-choice-screen", "--no-proxy-server"),
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {
    "left": "\ue012",
    "up": "\ue013",
    "right": "\ue014",
    "down": "\ue015",
    "page down": "\ue00f",
    "page up": "\ue00e",
}
KEYS |= {"enter": "\ue007", "escape": "\ue00c", "tab": "\ue004"}


def missing() -> str | None:
    """Say what there has to be, None where all is there."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(absent)} not installed" if absent else None


class Browser:
    """One session."""

    def __init__(self, driver: str, session: str) -> None:
        self.driver, self.session = driver, session

    def call(self, path: str, given: dict[str, Any] | None = None, method: str | None = None) -> Any:
        return command("/".join(filter(None, (self.driver, "session", self.session, path))), given, method)

    def open(self, url: str) -> None:
        self.call("url", {"url": url})

    def run(self, script: str, *given: Any) -> Any:
        """Run JavaScript that returns a value, or a promise of one."""
        return self.call("execute/sync", {"script": script, "args": list(given)})

    def until(self, script: str, *given: Any, seconds: float = 20.0) -> Any:
        """Run JavaScript again and again until it returns something true."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.run(script, *given)
            if found:
                return found
            assert time.monotonic() < deadline, f"never true: {script} {given}; the page says: {self.run(ERROR)}"
            time.sleep(0.03)

    def hover(self, selector: str, across: float, down: float, click: bool = False) -> None:
        """Move a real pointer to a place in an element, as shares of its box; press it there, too."""
        box = self.run(
            "const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'nearest'});"
            "const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]",
            selector,
        )
        x, y = box[0] + across * box[2], box[1] + down * box[3]
        steps: list[dict[str, Any]] = [{"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)}]
        if click:
            steps += [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        self.call("actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": steps}]})

    def press(self, *keys: str) -> None:
        """Press keys by name or letter, one after the other, wherever the focus is."""
        steps = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("actions", {"actions": [{"type": "key", "id": "keys", "actions": steps}]})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("screenshot")))

    def devtools(self, name: str, **given: Any) -> Any:
        return self.call("goog/cdp/execute", {"cmd": name, "params": given})


ERROR = "return document.getElementById('error')?.textContent || document.body.innerText.slice(0, 300)"


def command(url: str, given: dict[str, Any] | None, method: str | None = None) -> Any:
    data = None if given is None and method is None else json.dumps(given or {}).encode()
    if method is None:
        method = "GET" if given is None else "POST"
    request = Request(
        url, None if method in ("GET", "DELETE") else data, {"Content-Type": "application/json"}, method=method
    )
    try:
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"].splitlines()[0]) from error


@contextmanager
def browsing(folder: Path, width: int = 1280, height: int = 860) -> Iterator[Browser]:
    """Start Chromium with a profile in ``folder`` and end it."""
    process = subprocess.Popen(
        ["chromedriver", "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"HOME": str(folder)},  # whoever runs this has a home that is none of its business
    )
    try:
        assert process.stdout is not None
        port = next(
            found[1] for line in process.stdout if (found := re.search(r"started successfully on port (\d+)", line))
        )
        driver = f"http://127.0.0.1:{port}"
        options = {
            "binary": shutil.which("chromium"),
            "args": [*FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}"],
        }
        wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
        session = command(f"{driver}/session", wanted)["sessionId"]
        browser = Browser(driver, session)
        try:
            yield browser
        finally:
            browser.call("", None, "DELETE")
    finally:
        process.terminate()
        process.wait(10)
