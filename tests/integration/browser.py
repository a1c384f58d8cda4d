"""A headless Chromium in a container, which opens pages as files and tells what they did."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from selenium import webdriver
from selenium.webdriver.chrome.remote_connection import ChromeRemoteConnection
from selenium.webdriver.remote.client_config import ClientConfig
from selenium.webdriver.remote.webdriver import WebDriver
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from builder.docker.engine import Engine

PORT = 9515
FOLDER = "/home/browser"
_OPTIONS = (
    "--headless=new",
    # The container is what it cannot get out of; namespaces of its own are more than an engine gives it.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    # What the browser itself asks for is none of a page's requests; and whatever a page asks for finds nothing.
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


@contextlib.contextmanager
def running(engine: Engine, image: str) -> Iterator[Browser]:
    """The browser, until the block ends."""
    container = engine.client.containers.run(
        image, detach=True, remove=True, init=True, ports={f"{PORT}/tcp": ("127.0.0.1", None)}
    )
    try:
        container.reload()
        address = f"http://127.0.0.1:{container.ports[f'{PORT}/tcp'][0]['HostPort']}"
        _wait(address)
        options = webdriver.ChromeOptions()
        for each in _OPTIONS:
            options.add_argument(each)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        config = ClientConfig(remote_server_addr=address, timeout=60)
        connection = ChromeRemoteConnection(remote_server_addr=address, ignore_proxy=True, client_config=config)
        driver = webdriver.Remote(command_executor=connection, options=options)
        try:
            yield Browser(container, driver)
        finally:
            driver.quit()
    finally:
        container.remove(force=True)


@retry(
    stop=stop_after_delay(60),
    wait=wait_fixed(0.2),
    retry=retry_if_exception_type(requests.RequestException),
    reraise=True,
)
def _wait(address: str) -> None:
    session = requests.Session()
    session.trust_env = False  # no proxy between here and here
    session.get(f"{address}/status", timeout=5).raise_for_status()


@dataclass
class Browser:
    """One window."""

    container: Any
    driver: WebDriver

    def open(self, page: Path, *, scheme: str = "light", width: int = 1200, height: int = 900) -> None:
        """Opens a copy of `page`, with all that folds in it unfolded; `width` below 600 is a phone's."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(page, arcname="page.html")
        self.container.put_archive(FOLDER, packed.getvalue())
        self.protocol("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        phone = width < 600
        self.protocol(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        self.logged()
        self.driver.get(f"file://{FOLDER}/page.html")

    def unfold(self) -> None:
        """Opens everything that is folded."""
        self.run("for (const each of document.querySelectorAll('details')) each.open = true")

    def run(self, script: str, *arguments: Any) -> Any:
        """What the script, the body of a function, returns."""
        return self.driver.execute_script(script, *arguments)

    def protocol(self, command: str, **parameters: Any) -> Any:
        """A command of https://chromedevtools.github.io/devtools-protocol/."""
        return self.driver.execute("executeCdpCommand", {"cmd": command, "params": parameters})["value"]

    def screenshot(self, to: Path) -> None:
        """The whole page, and not only what is in the window."""
        taken = self.protocol("Page.captureScreenshot", captureBeyondViewport=True)
        to.write_bytes(base64.b64decode(taken["data"]))

    def logged(self) -> tuple[list[str], list[str]]:
        """Since it was asked last: what the console said, and the addresses that were asked for but the page's own."""
        said = [entry["message"] for entry in self._log("browser")]
        asked = []
        for entry in self._log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                address = event["params"].get("url") or event["params"]["request"]["url"]
                asked.append(str(address))
        return said, [
            each for each in asked if urlsplit(each).scheme != "data" and each != f"file://{FOLDER}/page.html"
        ]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        """chromedriver's own command: https://developer.chrome.com/docs/chromedriver/logging."""
        return list(self.driver.execute("getLog", {"type": kind})["value"])
