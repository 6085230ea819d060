"""Controls for the notebooks explore.ipynb and predict.ipynb.

The `value` of a `choose_...` is the choice. The sections of explore.ipynb redraw themselves when a control changes.
"""

import html
import io
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from ipywidgets import HTML, Box, Dropdown, IntSlider, Layout, VBox

from rsnlib.apps import explore
from rsnlib.apps.inputs import PICTURES
from rsnlib.apps.weights import list_weights
from rsnlib.config import load_params, project_root
from rsnlib.data.geometry import transform
from rsnlib.errors import UserError
from rsnlib.metrics import keypoint_accuracy
from rsnlib.models.attention import ATTENTIONS
from rsnlib.report import charts, cost, drawing, heatmaps, sentences
from rsnlib.stages.networks import untrained_fields
from rsnlib.stages.stores import load_store

SUGGESTIONS = 200
WIDE = Layout(width="36rem")
WRAPPED = Layout(flex_flow="row wrap")
NOTHING, IN_ORDER, WORST_FIRST = "nothing", "as in the data set", "worst of the keypoint first"
LISTED = 30  # people on whom two runs differ most
INPUTS = {"128x96": (128, 96), "256x192": (256, 192), "256x256": (256, 256), "384x288": (384, 288)}
DESIGNED = "as designed above"
slider = partial(IntSlider, continuous_update=False)


def choose_weights():
    """Return a control to choose among the weights known by name, the project's newest first."""
    return Dropdown(options=list(list_weights()["name"]), description="weights", layout=WIDE)


def choose_picture():
    """Return a control to choose a picture: any path may be typed; some of those below data/ are suggested."""
    paths = (str(path) for path in (project_root() / "data").rglob("*") if path.suffix.lower() in PICTURES)
    found = sorted(islice(paths, SUGGESTIONS))
    value = found[0] if found else ""
    return ipywidgets.Combobox(options=found, value=value, description="picture", layout=WIDE)


class Section(VBox):
    """A part of explore.ipynb. `build` makes its controls and figures and returns those to show; `redraw` draws for
    the controls' values, whenever a watched control changes.

    runs: [(control, other options)] of the controls that choose a run; their values are paths of weights, those that
        `offered` returns for the data set
    An error becomes one line at the end of the section, never a stack trace.
    """

    runs, offered = (), staticmethod(explore.weights_by_run)

    def __init__(self, dataset=None, *given):
        self.dataset, self.problem, self.paused = dataset, HTML(), False
        super().__init__([self.problem])
        with self.quietly():
            self.children = [*self.build(*given), self.problem]
            self.redraw()

    @contextmanager
    def quietly(self):
        """Let controls change without a redraw, and turn an exception into a line on the page."""
        before, self.paused = self.paused, True
        try:
            yield
        except Exception as error:
            said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            self.problem.value = f'<p role="alert" style="color: #A03000">{html.escape(said)}</p>'
        finally:
            self.paused = before

    def watch(self, *controls):
        """Redraw whenever one of the controls changes."""
        for control in controls:
            control.observe(self.react, "value")

    def react(self, _=None):
        """Redraw, unless a control changed quietly."""
        if not self.paused:
            with self.quietly():
                self.redraw()
                self.problem.value = ""

    def set(self, **values):
        """Give several controls, by name, their values, then redraw once."""
        with self.quietly():
            for name, value in values.items():
                getattr(self, name).value = value
        self.react()

    def renew(self):
        """Offer the runs that are there now; a control keeps its value if that is among them, else takes the first."""
        for control, others in self.runs:
            options, value = others | self.offered(self.dataset), control.value
            control.options = options
            control.value = value if value in options.values() else next(iter(options.values()))


class PersonView(Section):
    """One validation person as one run, or two side by side, see them: skeleton, heatmap, attention."""

    offered = staticmethod(explore.weights_to_see)

    def build(self):
        self.run, self.beside = Dropdown(description="run"), Dropdown(description="beside it")
        self.runs = [(self.run, {}), (self.beside, {NOTHING: NOTHING})]
        self.renew()
        if len(self.run.options) > 1:
            self.beside.index = len(self.run.options)
        people = explore.validation_people(self.dataset)
        keypoints = [(name, index) for index, name in enumerate(drawing.names_of(people.skeleton))]
        self.keypoint = Dropdown(options=keypoints, description="keypoint")
        judged = explore.prepared(self.dataset)
        self.order = Dropdown(options=[IN_ORDER, WORST_FIRST], description="order", disabled=not judged)
        self.place = slider(0, 0, len(people) - 1, description="person")
        self.stage = slider(1, 1, 1, description="stage")
        self.head = ipywidgets.SelectionSlider(
            options=heatmaps.HEAD_NAMES, value="finest", description="head", continuous_update=False
        )
        self.truth, self.views, self.about = image("jpeg"), (image("jpeg"), image("jpeg")), HTML()
        self.watch(self.run, self.beside, self.keypoint, self.place, self.stage, self.head)
        self.order.observe(lambda _: self.set(place=0), "value")
        controls = self.run, self.beside, self.keypoint, self.order, self.place, self.stage, self.head
        return Box(controls, layout=WRAPPED), Box([self.truth, VBox(self.views)], layout=WRAPPED), self.about

    def redraw(self):
        person, chosen = self.person(), [run for run in (self.run.value, self.beside.value) if run != NOTHING]
        stages = [len(explore.insight(self.dataset, weights, person).heads) for weights in chosen]
        self.stage.max = max(stages)
        self.truth.value = ground_truth_figure(self.dataset, chosen[0], person)
        self.views[1].layout.display = None if len(chosen) > 1 else "none"
        for view, weights, count in zip(self.views, chosen, stages):
            where = min(self.stage.value, count) - 1, self.head.index, self.keypoint.value
            view.value = insight_figure(self.dataset, weights, person, *where)
        self.about.value = html.escape(explore.describe(self.dataset, person))

    def person(self):
        """Return the index of the chosen person."""
        if self.order.value == IN_ORDER:
            return self.place.value
        worst = explore.worst_first(self.dataset, self.run.value, self.keypoint.value)
        return worst[min(self.place.value, len(worst) - 1)]


class Comparison(Section):
    """The errors of two runs on the people predicted by both, their difference with its interval, and a list of those
    people on whom they differ most; whoever is picked from the list appears in `view`, a PersonView."""

    def build(self, view):
        self.view, self.listed = view, None
        self.first, self.second = Dropdown(description="run"), Dropdown(description="beside it")
        self.runs = [(self.first, {}), (self.second, {})]
        self.renew()
        self.second.index = len(self.second.options) - 1
        self.near = slider(5, 1, 20, description="right up to")
        self.differing = ipywidgets.Select(rows=12, layout=Layout(width="20rem"))
        self.errors, self.says = image(), HTML()
        self.watch(self.first, self.second, self.near, self.differing)
        self.differing.observe(self.pick, "value")
        near = Box([self.near, HTML("% of the box's longer side")])
        listed = VBox([HTML("Where they differ most: the mean distance of each, in % of the box"), self.differing])
        controls = Box([self.first, self.second, near], layout=WRAPPED)
        return controls, Box([self.errors, listed], layout=WRAPPED), self.says

    def redraw(self):
        both, near = (self.first.value, self.second.value), self.near.value / 100
        means = np.stack([explore.mean_distances(self.dataset, weights) for weights in both])
        if both != self.listed:
            self.listed = both
            order = explore.largest_first(abs(means[0] - means[1]))[:LISTED]
            rows = [(f"person {p}: {100 * means[0, p]:.1f}, {100 * means[1, p]:.1f}", int(p)) for p in order]
            self.differing.options, self.differing.value = rows, None
        known, people = np.isfinite(means).all(axis=0), explore.validation_people(self.dataset)
        found = np.stack([explore.distances(self.dataset, weights)[known] for weights in both])
        accuracies = [keypoint_accuracy(each, near) for each in found]
        differences = explore.keypoint_differences(found, people.image_ids[known], near)
        apart = (differences[1:, 1] > 0) | (differences[1:, 2] < 0)
        names, about = (self.first.label, self.second.label), (people.skeleton, near, self.differing.value)
        self.errors.value = encoded(charts.two_runs(accuracies, apart, means, names, *about))
        metric = explore.metric_difference(self.dataset, *both)
        self.says.value = html.escape(sentences.difference(names, metric, differences, near, people.skeleton))

    def pick(self, _):
        """Show the person picked from the list as both runs see them."""
        if not self.paused and self.differing.value is not None:
            runs = {"run": self.first.value, "beside": self.second.value}
            self.view.set(order=IN_ORDER, place=self.differing.value, **runs)


class Designer(Section):
    """A network, from a line of params.yaml on: its cost and its blocks' receptive fields."""

    CHOSEN = ("block", "branches", "branch_width", "stages", "depths", "expansion", "attention")

    def build(self):
        self.models = load_params().models
        self.start = Dropdown(options=list(self.models), description="start from")
        depths = dict.fromkeys(model.architecture.depths for model in self.models.values())
        self.block = Dropdown(options=[(name.replace("_", " "), name) for name in cost.BLOCKS])
        self.branches, self.branch_width = IntSlider(min=2, max=6), IntSlider(min=1, max=64)
        self.stages, self.expansion = IntSlider(min=1, max=8), IntSlider(min=1, max=8)
        self.depths = Dropdown(options=[(", ".join(map(str, each)), each) for each in depths])
        self.attention = Dropdown(options=[("none", None), *((kind, kind) for kind in ATTENTIONS)])
        self.input = Dropdown(options=INPUTS, value=cost.INPUT, description="input")
        controls = [getattr(self, name) for name in self.CHOSEN]
        for name, control in zip(self.CHOSEN, controls):
            control.description = name.replace("_", " ")
            control.style.description_width = "6rem"
            control.continuous_update = False
        self.costs, self.fields = HTML(), image()
        self.restart()
        self.start.observe(self.restart, "value")
        self.watch(self.start, *controls, self.input)
        return Box([self.start, *controls, self.input], layout=WRAPPED), self.costs, self.fields

    def restart(self, _=None):
        """Start again from the chosen line of params.yaml."""
        with self.quietly():
            for name in self.CHOSEN:
                getattr(self, name).value = getattr(self.models[self.start.value].architecture, name)

    @property
    def model(self):
        """The config.Model chosen."""
        start = self.models[self.start.value]
        chosen = {name: getattr(self, name).value for name in self.CHOSEN}
        return replace(start, architecture=replace(start.architecture, **chosen))

    def redraw(self):
        design, start = self.model.architecture, self.models[self.start.value].architecture
        (parameters, multiply_adds), before = (cost.cost(each, 17, self.input.value) for each in (design, start))
        self.costs.value = (
            f"<b>{parameters / 1e6:.2f} M</b> parameters, {100 * parameters / before[0]:.0f} % of {self.start.value}; "
            f"<b>{multiply_adds / 1e9:.2f} G</b> multiply-adds per person, {100 * multiply_adds / before[1]:.0f} %"
        )
        self.fields.value = fields_figure(design.block, cost.branch_count(design))


class SmallRun(Section):
    """A short training, of a line of params.yaml or of the Designer's network, in the background: its progress, and a
    table of runs that it joins. `others` are sections that then offer the new run."""

    def build(self, designer, *others):
        self.designer, self.others = designer, others
        self.thread, self.cancelled = None, threading.Event()
        most = len(load_store(self.dataset, "train"))
        self.model = Dropdown(options=[*load_params().models, DESIGNED], description="model")
        self.epochs = IntSlider(4, 1, 20, description="epochs")
        self.people = IntSlider(min(500, most), 1, most, description="people")
        self.start = ipywidgets.Button(description="start", icon="play")
        self.cancel = ipywidgets.Button(description="cancel", icon="stop", disabled=True)
        self.progress, self.doing, self.table = ipywidgets.FloatProgress(max=1), HTML(), HTML()
        self.start.on_click(self.begin)
        self.cancel.on_click(lambda _: self.cancelled.set())
        controls = self.model, self.epochs, self.people, self.start, self.cancel
        return Box(controls, layout=WRAPPED), Box([self.progress, self.doing]), self.table

    def redraw(self):
        runs = explore.compare(self.dataset)
        table = runs.to_html(index=False, border=0, float_format="{:.2f}".format, na_rep="")
        self.table.value = f'<div class="jp-RenderedHTMLCommon">{table}</div>'

    def begin(self, _):
        """Start the training in a thread."""
        self.problem.value = ""
        with self.quietly():
            name = self.model.value
            chosen = (self.designer.model, "designed") if name == DESIGNED else (load_params().model(name), name)
            self.start.disabled, self.cancel.disabled = True, False
            self.cancelled.clear()
            self.thread = threading.Thread(target=self.work, args=chosen, daemon=True)
            self.thread.start()

    def work(self, model, name):
        """Train, then offer the new run everywhere."""
        with self.quietly():
            try:
                explore.train_briefly(self.dataset, model, name, self.epochs.value, self.people.value, self.tell)
                for section in self.others:
                    with section.quietly():
                        section.renew()
                self.redraw()
            except Cancelled:
                self.doing.value = "cancelled; nothing is kept"
            finally:
                self.start.disabled, self.cancel.disabled = False, True

    def tell(self, fraction, doing):
        """Show the progress, a fraction and a text; raises Cancelled once the user has pressed cancel."""
        if self.cancelled.is_set():
            raise Cancelled
        self.progress.value, self.doing.value = fraction, html.escape(doing)


class Cancelled(Exception):
    """Raised to end a small run that the user cancelled."""


def image(kind="png"):
    """Return a widget for an encoded figure: "png" for drawings, "jpeg" for photographs."""
    layout = Layout(max_width="100%", margin="0", object_fit="contain", align_self="flex-start")
    return ipywidgets.Image(format=kind, layout=layout)


def encoded(figure, kind="png"):
    """Return a figure as the bytes of a PNG or JPEG, compressed little for speed, and close it."""
    file = io.BytesIO()
    options = {"compress_level": 1} if kind == "png" else {"quality": 92}
    figure.savefig(file, format=kind, dpi=100, pil_kwargs=options)
    plt.close(figure)
    return file.getvalue()


@lru_cache(maxsize=64)
def ground_truth_figure(dataset, weights, person):
    """Return heatmaps.true_person of a validation person, in the crop that a network sees, as JPEG bytes."""
    people, seen = explore.validation_people(dataset), explore.insight(dataset, weights, person)
    truth = transform(seen.matrix, people.keypoints[person])
    figure = heatmaps.true_person(seen.crop, truth, people.visible[person], people.skeleton, f"person {person}")
    return encoded(figure, "jpeg")


@lru_cache(maxsize=256)
def insight_figure(dataset, weights, person, stage, head, keypoint):
    """Return heatmaps.insight of a network into a validation person, as JPEG bytes."""
    people, seen = explore.validation_people(dataset), explore.insight(dataset, weights, person)
    truth = transform(seen.matrix, people.keypoints[person]), people.visible[person]
    return encoded(heatmaps.insight(seen, stage, head, keypoint, *truth, people.skeleton, weights.stem), "jpeg")


@lru_cache(maxsize=32)
def fields_figure(block, branches):
    """Return heatmaps.effective_fields of an untrained kind of block, as PNG bytes."""
    return encoded(heatmaps.effective_fields(untrained_fields([(block, branches)])))
