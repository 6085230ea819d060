"""In a browser, used as a user would: notebooks/explore.ipynb in JupyterLab, and the page of all results."""

import os
import shutil
import signal
import subprocess
import sys

import nbformat
import pytest
from checkout import ROOT
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from rsnlib.apps import explore
from rsnlib.data.skeletons import COCO
from rsnlib.files import read_json, write_json
from rsnlib.stages.layout import results_path
from rsnlib.stages.notebook import clean_notebook, executed_path
from rsnlib.stages.provenance import made_by
from rsnlib.stages.site import write_site
from rsnlib.stages.tables import tables

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE = 60  # seconds for anything to happen
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --window-size=1400,1200"""
PEOPLE, COMPARISON, DESIGN, SMALL_RUN = 2, 3, 4, 5  # code cells

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver: apt-get install chromium chromium-driver"
)


@pytest.fixture
def lab(project, tmp_path):
    """The address of explore.ipynb in an unconfigured JupyterLab, in a project of two small runs."""
    (project / "notebooks").unlink()  # a link to the checkout's, which no page may save
    shutil.copytree(ROOT / "notebooks", project / "notebooks")
    announcements = {"@jupyterlab/apputils-extension:announcements": True}  # would ask the network for news
    write_json(tmp_path / "JUPYTER_CONFIG_DIR/labconfig/page_config.json", {"disabledExtensions": announcements})
    folders = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR"]
    folders += ["JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {name: str(tmp_path / name) for name in folders}
    runtime = tmp_path / "JUPYTER_RUNTIME_DIR"
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
    browser.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})  # else no widget is current
    yield browser
    browser.quit()


class Page:
    """The notebook as a user sees it: its cells by number, their controls by label."""

    def __init__(self, browser):
        self.browser = browser

    def until(self, happens):
        waiting = WebDriverWait(self.browser, PATIENCE, poll_frequency=0.1, ignored_exceptions=[IndexError])
        return waiting.until(lambda _: happens())  # a cell that is not drawn yet is an IndexError

    def cell(self, number):
        return self.browser.find_elements(By.CSS_SELECTOR, ".jp-Notebook .jp-CodeCell")[number]

    def control(self, cell, label, kind):
        """Return the element, by a CSS selector, of the control with a label."""
        path = f".//label[normalize-space()='{label}']/.."
        return self.cell(cell).find_element(By.XPATH, path).find_element(By.CSS_SELECTOR, kind)

    def choose(self, cell, label, value):
        Select(self.control(cell, label, "select")).select_by_visible_text(value)

    def slide(self, cell, label, key):
        self.control(cell, label, ".noUi-handle").send_keys(key)

    def figures(self, cell):
        return [image.get_attribute("src") for image in self.cell(cell).find_elements(By.CSS_SELECTOR, "img")]

    def text(self, cell):
        return self.cell(cell).find_element(By.CSS_SELECTOR, ".jp-Cell-outputArea").text

    def redraws(self, cell, act, *given, redrawn=None):
        """Act in a cell, then wait until its figures, or those of cell `redrawn`, are others and the kernel idles."""
        where = cell if redrawn is None else redrawn
        before = self.figures(where)
        act(cell, *given)
        self.until(lambda: self.figures(where) != before and self.idle())

    def idle(self):
        return self.session("session?.kernel?.status") == "idle"

    def session(self, what):
        """Return a property of JupyterLab's session with the notebook's kernel."""
        return self.browser.execute_script(f"return window.jupyterapp?.shell.currentWidget?.sessionContext?.{what}")


def test_every_section_follows_its_controls_without_a_stack_trace(project, lab, browser):
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
    weights, wrist = project / "work/models/demo/steps-prm-0.safetensors", COCO.keypoints.index("left_wrist")
    page.choose(PEOPLE, "order", "worst of the keypoint first")
    worst = explore.worst_first("demo", weights, wrist)[0]  # perhaps the one shown already
    page.until(lambda: f"person {worst}, annotation" in page.text(PEOPLE) and page.idle())

    page.redraws(COMPARISON, page.slide, "right up to", Keys.ARROW_RIGHT)
    assert "steps-prm-0 less plain-0, in points" in page.text(COMPARISON)
    someone = page.cell(COMPARISON).find_element(By.CSS_SELECTOR, "select[size] option")
    name = someone.text.split(":")[0]
    page.redraws(COMPARISON, lambda _: someone.click(), redrawn=PEOPLE)
    page.until(lambda: f"{name}, annotation" in page.text(PEOPLE))

    page.choose(DESIGN, "start from", "steps-prm")
    page.redraws(DESIGN, page.slide, "branches", Keys.ARROW_LEFT)
    costs = page.text(DESIGN)
    page.slide(DESIGN, "stages", Keys.ARROW_RIGHT)
    page.until(lambda: page.text(DESIGN) != costs)

    page.choose(SMALL_RUN, "model", "plain")
    page.slide(SMALL_RUN, "epochs", Keys.ARROW_LEFT)
    page.cell(SMALL_RUN).find_element(By.XPATH, ".//button[contains(., 'start')]").click()
    page.until(lambda: "plain-try1" in page.text(SMALL_RUN))
    page.redraws(PEOPLE, page.choose, "run", "plain-try1")

    assert browser.find_elements(By.CSS_SELECTOR, "[data-mime-type*=error], [data-mime-type*=stderr]") == []
    assert [alert.text for alert in browser.find_elements(By.CSS_SELECTOR, "p[role=alert]")] == []
    assert "Traceback" not in browser.find_element(By.TAG_NAME, "body").text

    browser.set_window_size(600, 900)  # a narrow window: pictures shrink, nothing is cut off
    page.until(lambda: page.cell(PEOPLE).size["width"] < 600)
    widths = [image.size["width"] for image in browser.find_elements(By.CSS_SELECTOR, ".jp-CodeCell img")]
    assert max(widths) <= page.cell(PEOPLE).size["width"]


@pytest.fixture
def site(project):
    """The page of two finished runs, with a wide and a high picture."""
    tables("demo")
    executed = executed_path("tables", {"dataset": "demo"})
    executed.parent.mkdir(parents=True, exist_ok=True)
    cells = [nbformat.v4.new_markdown_cell("# Tables")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), executed)
    clean_notebook(executed, made_by("tables", {"dataset": "demo"}))
    for name, size in {"heads-steps-prm-0": (1000, 340), "poses": (600, 800)}.items():
        path = results_path("demo", "figures", f"{name}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "olive").save(path)
    return write_site().as_uri()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_picture_is_shown_large_with_what_made_it_and_nothing_sticks_out(site, browser, width, scheme):
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    chosen = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", chosen)
    browser.get(site)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    background = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    assert (background == "rgba(255, 255, 255, 1)") == (scheme == "light")

    table = browser.find_element(By.XPATH, "//details[summary='Results']//div[@class='wide']")
    scrolls = browser.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", table)
    assert scrolls or width > 600

    dialog = browser.find_element(By.TAG_NAME, "dialog")
    first, second = browser.find_elements(By.CSS_SELECTOR, ".row .picture")
    assert not dialog.is_displayed() and second.size["width"] <= width
    second.send_keys(Keys.ENTER)  # by keyboard, too
    assert dialog.is_displayed()
    assert "model steps-prm, seed 0; drawn by figures.ipynb" in dialog.text
    assert dialog.find_element(By.TAG_NAME, "img").size["width"] >= min(second.size["width"], 500)
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed() and browser.switch_to.active_element == second
    first.click()
    assert "Validation pictures" in dialog.text
    dialog.find_element(By.TAG_NAME, "button").click()
    assert not dialog.is_displayed()

    menu = browser.find_element(By.ID, "menu")
    if width < 600:
        assert not menu.find_elements(By.LINK_TEXT, "tables")  # these are the visible ones
        menu.find_element(By.TAG_NAME, "summary").click()
    menu.find_element(By.LINK_TEXT, "tables").click()
    shown = [each.get_attribute("id") for each in browser.find_elements(By.TAG_NAME, "section") if each.is_displayed()]
    assert shown == ["demo-tables"]
