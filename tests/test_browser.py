"""notebooks/explore.ipynb in JupyterLab in a browser: every section's controls are used as a person would."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from rsnlib.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE = 60  # seconds for anything to happen
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --window-size=1400,1200"""
PEOPLE, COMPARISON, DESIGN, SMALL_RUN = 2, 3, 4, 5  # which code cell

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver: apt-get install chromium chromium-driver"
)


@pytest.fixture
def lab(project, tmp_path):
    """The address of explore.ipynb in a JupyterLab that nobody has configured, in a project of two small runs."""
    (project / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "explore.ipynb", project / "notebooks")
    settings, runtime = tmp_path / "settings", tmp_path / "runtime"
    announcements = {"@jupyterlab/apputils-extension:announcements": True}  # would ask the network for news
    write_json(tmp_path / "config" / "labconfig" / "page_config.json", {"disabledExtensions": announcements})
    folders = {"CONFIG": tmp_path / "config", "DATA": tmp_path / "data", "RUNTIME": runtime}
    environment = os.environ | {f"JUPYTER_{name}_DIR": str(folder) for name, folder in folders.items()}
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(settings), "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces")}
    environment |= {"IPYTHONDIR": str(tmp_path / "ipython"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.port=0"]
    command.append("--LabApp.expose_app_in_browser=True")
    with open(tmp_path / "lab.log", "w") as log:
        server = subprocess.Popen(command, cwd=project, env=environment, stdout=log, stderr=log)
    try:
        found = WebDriverWait(runtime, PATIENCE).until(lambda folder: list(folder.glob("jpserver-*.json")))
        about = read_json(found[0])
        yield f"{about['url']}lab/tree/notebooks/explore.ipynb?token={about['token']}"
    finally:
        server.send_signal(signal.SIGTERM)  # it ends its kernels
        server.wait(PATIENCE)


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path / 'chromium'}"]:
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


class Page:
    """The notebook as a person sees it."""

    def __init__(self, browser):
        self.browser = browser

    def until(self, happens):
        return WebDriverWait(self.browser, PATIENCE, poll_frequency=0.1).until(lambda _: happens())

    def cell(self, number):
        return self.browser.find_elements(By.CSS_SELECTOR, ".jp-Notebook .jp-CodeCell")[number]

    def control(self, cell, label, kind):
        """The `kind` of element, a CSS selector, of the control with a label."""
        path = f".//label[normalize-space()='{label}']/.."
        return self.cell(cell).find_element(By.XPATH, path).find_element(By.CSS_SELECTOR, kind)

    def choose(self, cell, label, value):
        Select(self.control(cell, label, "select")).select_by_visible_text(value)

    def slide(self, cell, label, key):
        self.control(cell, label, ".noUi-handle").send_keys(key)

    def press(self, cell, name):
        self.cell(cell).find_element(By.XPATH, f".//button[contains(., '{name}')]").click()

    def pictures(self, cell):
        return [image.get_attribute("src") for image in self.cell(cell).find_elements(By.CSS_SELECTOR, "img")]

    def text(self, cell):
        return self.cell(cell).find_element(By.CSS_SELECTOR, ".jp-Cell-outputArea").text

    def redraws(self, cell, act, *given, redrawn=None):
        """Act, then wait until the pictures of a cell (another than acted in: `redrawn`) are others and all is done."""
        where = cell if redrawn is None else redrawn
        before = self.pictures(where)
        act(cell, *given)
        self.until(lambda: self.pictures(where) != before and self.session("session?.kernel?.status") == "idle")

    def session(self, what):
        """Something of JupyterLab's session with the notebook's kernel."""
        return self.browser.execute_script(f"return window.jupyterapp?.shell.currentWidget?.sessionContext?.{what}")


def test_every_section_follows_its_controls_without_a_stack_trace(lab, browser):
    page = Page(browser)
    browser.get(lab)
    page.until(lambda: page.session("isReady"))
    browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.until(lambda: "right keypoints" in page.text(SMALL_RUN))

    page.redraws(PEOPLE, page.choose, "keypoint", "left wrist")
    page.redraws(PEOPLE, page.slide, "head", Keys.ARROW_LEFT)
    page.redraws(PEOPLE, page.slide, "person", Keys.ARROW_RIGHT)
    assert "person 1, annotation" in page.text(PEOPLE)
    page.redraws(PEOPLE, page.choose, "run", "steps-prm-0")
    page.redraws(PEOPLE, page.choose, "beside it", "plain-0")
    page.redraws(PEOPLE, page.choose, "order", "worst of the keypoint first")

    page.redraws(COMPARISON, page.slide, "right up to", Keys.ARROW_RIGHT)
    someone = page.cell(COMPARISON).find_element(By.CSS_SELECTOR, "select[size] option")
    name = someone.text.split(":")[0]
    page.redraws(COMPARISON, lambda _: someone.click(), redrawn=PEOPLE)
    page.until(lambda: f"{name}, annotation" in page.text(PEOPLE))

    page.choose(DESIGN, "start from", "steps-prm")
    page.redraws(DESIGN, page.slide, "branches", Keys.ARROW_LEFT)
    costs = page.text(DESIGN)
    page.slide(DESIGN, "stages", Keys.ARROW_RIGHT)
    page.until(lambda: page.text(DESIGN) != costs)

    page.slide(SMALL_RUN, "epochs", Keys.ARROW_LEFT)
    page.press(SMALL_RUN, "start")
    page.until(lambda: "plain-try1" in page.text(SMALL_RUN))
    page.redraws(PEOPLE, page.choose, "run", "plain-try1")

    assert browser.find_elements(By.CSS_SELECTOR, "[data-mime-type*=error], [data-mime-type*=stderr]") == []
    assert [alert.text for alert in browser.find_elements(By.CSS_SELECTOR, "p[role=alert]")] == []
    assert "Traceback" not in browser.find_element(By.TAG_NAME, "body").text

    browser.set_window_size(600, 900)  # a narrow window: pictures shrink, nothing is cut off
    page.until(lambda: page.cell(PEOPLE).size["width"] < 600)
    widths = [image.size["width"] for image in browser.find_elements(By.CSS_SELECTOR, ".jp-CodeCell img")]
    assert max(widths) <= page.cell(PEOPLE).size["width"]
