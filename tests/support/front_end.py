"""ComfyUI's real front end in a headless Chromium: opens workflows as an artist does, runs them, and takes pictures."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

READY_SECONDS = 300
RUN_SECONDS = 900  # of a workflow, on a busy machine
WIDTH, HEIGHT = 1720, 1000  # of the page, in pixels
LARGEST_JPEG_BYTES = 44_000

# No first-run screen in front of the canvas.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
}

IS_READY = """
const a = window.app;
return !!(a && a.graph && a.canvas && a.extensionManager && window.LiteGraph &&
          Object.keys(LiteGraph.registered_node_types).length > 50);
"""

OPEN = """
const [workflow, done] = arguments;
const load = workflow.nodes ? app.loadGraphData(workflow, true, true, null) : app.loadApiJson(workflow, 'workflow');
Promise.resolve(load).then(() => done(null), e => done(String(e && e.stack || e)));
"""

# Types that the front end does not know, and links whose ends are not there.
PROBLEMS = """
const problems = [], nodes = app.graph.nodes, links = [...app.graph.links.values()];
for (const n of nodes) {
  if (!LiteGraph.registered_node_types[n.type]) problems.push('unknown node ' + n.type);
  if (n.has_errors) problems.push('node ' + n.id + ' has errors');
}
for (const l of links) {
  const from = app.graph.getNodeById(l.origin_id), to = app.graph.getNodeById(l.target_id);
  if (!from || !from.outputs[l.origin_slot] || !to || !to.inputs[l.target_slot]) problems.push('loose link ' + l.id);
}
document.querySelectorAll('.p-dialog, [role=dialog], .comfy-modal, .p-toast-message').forEach(d => {
  const text = (d.innerText || '').trim();
  if (text && d.checkVisibility({visibilityProperty: true})) problems.push('the front end says: ' + text.slice(0, 400));
});
return problems;
"""

EXPORT = "const done = arguments[0]; app.graphToPrompt().then(p => done(p.output), e => done({error: String(e)}));"

# Presses Run. How it ended stands in window.runEnded: a script that waits for that would meet the driver's own limit.
RUN = """
const api = app.api || window.comfyAPI.api.api;
window.runEnded = null;
const finish = status => { window.runEnded ??= status; };
api.addEventListener('execution_success', () => finish('success'));
api.addEventListener('execution_interrupted', () => finish('interrupted'));
api.addEventListener('execution_error', e => finish('error: ' + e.detail.exception_message));
app.queuePrompt(0, 1).then(() => {
  const refused = app.lastNodeErrors || {};
  if (Object.keys(refused).length) finish('rejected: ' + JSON.stringify(refused));
}, e => finish('rejected: ' + e));
"""

# Shows the whole graph beside the tool bars, and tells where it lies on the page: [left, top, right, bottom].
FIT = """
const c = app.canvas;
let x0 = Infinity, y0 = Infinity, x1 = -Infinity, y1 = -Infinity;
for (const n of app.graph.nodes) {
  x0 = Math.min(x0, n.pos[0]); y0 = Math.min(y0, n.pos[1] - 34);
  x1 = Math.max(x1, n.pos[0] + n.size[0]); y1 = Math.max(y1, n.pos[1] + n.size[1]);
}
const page = c.canvas.getBoundingClientRect(), left = 70, top = 170, right = 30, bottom = 70;
const w = page.width - left - right, h = page.height - top - bottom;
const scale = Math.min(w / (x1 - x0), h / (y1 - y0), 1);
c.ds.scale = scale;
c.ds.offset[0] = left / scale - x0;
c.ds.offset[1] = top / scale - y0;
c.setDirty(true, true);
const at = (x, y) => [page.left + (x + c.ds.offset[0]) * scale, page.top + (y + c.ds.offset[1]) * scale];
return [...at(x0, y0), ...at(x1, y1)];
"""


def find_browser() -> tuple[str, str] | None:
    """Chromium and its driver, if they are installed. Nothing is downloaded."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((path for name in names if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class FrontEnd:
    """A page with the front end of the ComfyUI at `url`; a context manager that closes it."""

    def __init__(self, url: str, browser: str, driver: str) -> None:
        self._url = url
        self._post("/settings", SETTINGS)
        self._profile = tempfile.TemporaryDirectory(prefix="lanced-chromium-", ignore_cleanup_errors=True)
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--use-gl=angle",
            "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader",
            "--lang=en-US",
            f"--window-size={WIDTH},{HEIGHT}",
            f"--user-data-dir={self._profile.name}",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self._page = webdriver.Chrome(options=options, service=Service(driver))
        self._page.set_script_timeout(110)
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        self._page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def __enter__(self) -> FrontEnd:
        self._page.get(self._url)
        deadline = time.monotonic() + READY_SECONDS
        while not self._page.execute_script(IS_READY):
            if time.monotonic() > deadline:
                raise RuntimeError("ComfyUI's front end did not become ready")
            time.sleep(0.1)
        time.sleep(1)  # its own start loads the default workflow
        return self

    def __exit__(self, *_: object) -> None:
        self._page.quit()
        self._profile.cleanup()

    def _post(self, path: str, body: Any) -> None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, json.dumps(body).encode(), headers)
        urllib.request.urlopen(request, timeout=30).close()

    def open(self, workflow: dict[str, Any]) -> list[str]:
        """Open a workflow of either form; what the front end has to say against it."""
        self._page.get_log("browser")
        error = self._page.execute_async_script(OPEN, workflow)
        time.sleep(0.7)  # for what it shows after that
        problems: list[str] = self._page.execute_script(PROBLEMS)
        console = [entry["message"] for entry in self._page.get_log("browser") if entry["level"] == "SEVERE"]
        # 404: user.css and the like, which a fresh ComfyUI does not have; others' hosts are none of ours.
        problems += [line for line in console if line.startswith(self._url) and "404" not in line]
        return [*problems, *([error] if error else [])]

    def refresh(self) -> None:
        """Press R: files and models that are new since are in the menus, and what it says of that has gone again."""
        self._page.execute_script("return app.refreshComboInNodes();")
        deadline = time.monotonic() + READY_SECONDS
        while self._page.execute_script("return document.querySelectorAll('.p-toast-message').length;"):
            if time.monotonic() > deadline:
                raise RuntimeError("the front end goes on saying something after R")
            time.sleep(0.1)

    def api_form(self) -> dict[str, Any]:
        """The open workflow as the front end would submit it."""
        form: dict[str, Any] = self._page.execute_async_script(EXPORT)
        return form

    def run(self) -> str:
        """Press Run and wait for the end: "success", or what went wrong."""
        self._page.execute_script(RUN)
        deadline = time.monotonic() + RUN_SECONDS
        while (status := self._page.execute_script("return window.runEnded;")) is None:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the workflow did not end within {RUN_SECONDS} s")
            time.sleep(0.1)
        return str(status)

    def execute(self, script: str, *arguments: Any) -> Any:
        """JavaScript in the page; its value."""
        return self._page.execute_script(script, *arguments)

    def picture(self) -> Image.Image:
        """The open graph as it looks now, without the tool bars around it."""
        self._page.execute_script(FIT)
        self._page.execute_script("document.querySelectorAll('video').forEach(v => { v.controls = false; });")
        time.sleep(1.5)  # pictures and videos in the nodes are fetched and drawn
        left, top, right, bottom = self._page.execute_script(FIT)
        with Image.open(io.BytesIO(self._page.get_screenshot_as_png())) as whole:
            margin = 12
            box = (left - margin, top - 2 * margin, right + margin, bottom + margin)  # above: the pack's name
            cut: Image.Image = whole.convert("RGB").crop(tuple(round(value) for value in box))
            return cut


def save_small_jpeg(picture: Image.Image, path: Path) -> None:
    """As good as fits into LARGEST_JPEG_BYTES."""
    for quality in range(85, 20, -5):
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=quality, optimize=True, progressive=True)
        if data.tell() <= LARGEST_JPEG_BYTES:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.getvalue())
