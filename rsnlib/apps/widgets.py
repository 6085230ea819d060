"""The controls of the notebooks that are for a person. The `value` of a `choose_...` is what was chosen; the sections
of notebooks/explore.ipynb draw what was chosen themselves."""

import html
import io
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import islice

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from ipywidgets import HTML, Box, Dropdown, IntSlider, Layout, VBox

from rsnlib.apps import explore
from rsnlib.apps.overlays import PICTURES
from rsnlib.config import load_params, project_root
from rsnlib.data.geometry import transform
from rsnlib.errors import UserError
from rsnlib.metrics import keypoint_accuracy
from rsnlib.report import charts, cost, drawing, heatmaps
from rsnlib.stages import layout
from rsnlib.stages import networks as networks_stage

SUGGESTIONS = 200
WIDE = Layout(width="36rem")
WRAPPED = Layout(flex_flow="row wrap")
NOTHING, IN_ORDER, WORST_FIRST = "nothing", "as in the data set", "worst of the keypoint first"
LISTED = 30  # people on whom two runs differ the most
INPUTS = {"128x96": (128, 96), "256x192": (256, 192), "256x256": (256, 256), "384x288": (384, 288)}
DESIGNED = "as designed above"


def choose_run():
    """Which weights under work/models; the value is their path."""
    return Dropdown(options=layout.trained(), description="run", layout=WIDE)


def choose_picture():
    """Which picture: any path may be typed; some of the pictures below data/ are suggested."""
    paths = (str(path) for path in (project_root() / "data").rglob("*") if path.suffix.lower() in PICTURES)
    found = sorted(islice(paths, SUGGESTIONS))
    value = found[0] if found else ""
    return ipywidgets.Combobox(options=found, value=value, description="picture", layout=WIDE)


class Section(VBox):
    """A part of notebooks/explore.ipynb. `build` makes its controls and pictures and returns those to show; `redraw`
    draws what they say, whenever one of those that it watches changes.

    Whatever goes wrong is one line at the end of the section, never a stack trace.
    """

    def __init__(self, *given):
        super().__init__()
        self.problem, self.still = HTML(), False
        with self.telling():
            self.children = [*self.build(*given), self.problem]
            self.redraw()
        if not self.children:
            self.children = [self.problem]

    @contextmanager
    def telling(self):
        """What goes wrong inside is said on the page."""
        try:
            yield
            self.problem.value = ""
        except Exception as error:
            said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            self.problem.value = f'<p role="alert" style="color: #A03000">{html.escape(said)}</p>'

    @contextmanager
    def keeping_still(self):
        """What changes inside redraws nothing."""
        before, self.still = self.still, True
        try:
            yield
        finally:
            self.still = before

    def watch(self, *controls):
        for control in controls:
            control.observe(self.react, "value")

    def react(self, _):
        if not self.still:
            with self.telling():
                self.redraw()

    def set(self, **values):
        """Give several controls, by name, their values, then redraw once."""
        with self.keeping_still():
            for name, value in values.items():
                getattr(self, name).value = value
        self.react(None)

    def offer(self, control, options):
        """Give a control other options; it keeps its value where that is among them."""
        with self.keeping_still():
            value = control.value
            control.options = options
            if value in options:
                control.value = value


class People(Section):
    """What one run, or two side by side, make of a validation person."""

    def build(self, dataset):
        self.dataset = dataset
        names, people = list(explore.runs(dataset)), explore.people(dataset)
        keypoints = [(name, index) for index, name in enumerate(drawing.names_of(people.skeleton))]
        self.run = Dropdown(options=names, description="run")
        self.beside = Dropdown(options=[NOTHING, *names], description="beside it")
        self.beside.value = names[-1] if len(names) > 1 else NOTHING
        self.keypoint = Dropdown(options=keypoints, description="keypoint")
        self.order = Dropdown(options=[IN_ORDER, WORST_FIRST], description="order")
        self.place = IntSlider(max=len(people) - 1, description="person", continuous_update=False)
        self.stage = IntSlider(1, 1, 1, description="stage", continuous_update=False)
        self.head = ipywidgets.SelectionSlider(
            options=heatmaps.HEAD_NAMES, value="finest", description="head", continuous_update=False
        )
        self.truth, self.views, self.about = picture("jpeg"), (picture("jpeg"), picture("jpeg")), HTML()
        self.watch(self.run, self.beside, self.keypoint, self.place, self.stage, self.head)
        self.order.observe(lambda _: self.set(place=0), "value")
        controls = self.run, self.beside, self.keypoint, self.order, self.place, self.stage, self.head
        return Box(controls, layout=WRAPPED), Box([self.truth, VBox(self.views)], layout=WRAPPED), self.about

    def redraw(self):
        runs, person = explore.runs(self.dataset), self.person()
        chosen = [name for name in (self.run.value, self.beside.value) if name != NOTHING]
        seen = {name: explore.insight(self.dataset, runs[name], person) for name in chosen}
        with self.keeping_still():
            self.stage.max = max(len(each.heads) for each in seen.values())
        self.truth.value = true_picture(self.dataset, runs[chosen[0]], person)
        self.views[1].layout.display = None if len(chosen) > 1 else "none"
        head, keypoint = self.head.index, self.keypoint.value
        for view, name in zip(self.views, chosen):
            stage = min(self.stage.value, len(seen[name].heads)) - 1
            view.value = insight_picture(self.dataset, runs[name], person, stage, head, keypoint)
        self.about.value = html.escape(explore.describe(self.dataset, person))

    def person(self):
        """The index of the chosen person."""
        if self.order.value == IN_ORDER:
            return self.place.value
        weights = explore.runs(self.dataset)[self.run.value]
        worst = explore.worst_first(self.dataset, weights, self.keypoint.value)
        return worst[min(self.place.value, len(worst) - 1)]

    def show(self, person, run, beside):
        self.set(order=IN_ORDER, place=person, run=run, beside=beside)

    def renew(self):
        """Offer the runs that are there now."""
        names = list(explore.runs(self.dataset))
        self.offer(self.run, names)
        self.offer(self.beside, [NOTHING, *names])


class Comparison(Section):
    """The errors of two runs on the people whom both predicted; whoever is picked from the list of those on whom they
    differ most appears in `people`."""

    def build(self, dataset, people):
        self.dataset, self.people, self.listed = dataset, people, None
        names = list(explore.runs(dataset))
        self.first = Dropdown(options=names, description="run")
        self.second = Dropdown(options=names, value=names[-1], description="beside it")
        self.near = IntSlider(5, 1, 20, description="right up to", continuous_update=False)
        self.differing = ipywidgets.Select(rows=12, layout=Layout(width="20rem"))
        self.errors = picture()
        self.watch(self.first, self.second, self.near, self.differing)
        self.differing.observe(self.pick, "value")
        near = Box([self.near, HTML("% of the box's longer side")])
        listed = VBox([HTML("Where they differ most: the mean distance of each, in % of the box"), self.differing])
        controls = Box([self.first, self.second, near], layout=WRAPPED)
        return controls, Box([self.errors, listed], layout=WRAPPED)

    def redraw(self):
        runs, names = explore.runs(self.dataset), (self.first.value, self.second.value)
        weights = [runs[name] for name in names]
        means = np.stack([explore.mean_distances(self.dataset, each) for each in weights])
        if names != self.listed:
            self.listed = names
            order = explore.largest_first(abs(means[0] - means[1]))[:LISTED]
            rows = [(f"person {p}: {100 * means[0, p]:.1f}, {100 * means[1, p]:.1f}", int(p)) for p in order]
            with self.keeping_still():
                self.differing.options, self.differing.value = rows, None
        both = np.isfinite(means).all(axis=0)
        near = self.near.value / 100
        shares = [keypoint_accuracy(explore.distances(self.dataset, each)[both], near) for each in weights]
        skeleton = explore.people(self.dataset).skeleton
        self.errors.value = encoded(charts.two_runs(shares, means, names, skeleton, near, self.differing.value))

    def pick(self, _):
        if not self.still and self.differing.value is not None:
            self.people.show(self.differing.value, self.first.value, self.second.value)

    def renew(self):
        """Offer the runs that are there now."""
        names = list(explore.runs(self.dataset))
        self.offer(self.first, names)
        self.offer(self.second, names)


class Designer(Section):
    """A network, from a line of params.yaml on: what it costs and how far its blocks see. `model` is the
    config.Model chosen."""

    CHOSEN = ("block", "branches", "branch_width", "stages", "depths", "expansion", "attention")

    def build(self):
        self.models = load_params().models
        self.start = Dropdown(options=list(self.models), description="start from")
        depths = dict.fromkeys(tuple(model.depths) for model in self.models.values())
        self.block = Dropdown(options=[(name.replace("_", " "), name) for name in cost.BLOCKS])
        self.branches, self.branch_width = IntSlider(min=2, max=6), IntSlider(min=1, max=64)
        self.stages, self.expansion = IntSlider(min=1, max=8), IntSlider(min=1, max=8)
        self.depths = Dropdown(options=[(", ".join(map(str, each)), each) for each in depths])
        kinds = "prm", "prm-mmpose", "se", "cbam"
        self.attention = Dropdown(options=[("none", None), *((kind, kind) for kind in kinds)])
        self.input = Dropdown(options=INPUTS, value=cost.INPUT, description="input")
        controls = [getattr(self, name) for name in self.CHOSEN]
        for name, control in zip(self.CHOSEN, controls):
            control.description = name.replace("_", " ")
            control.style.description_width = "6rem"
            control.continuous_update = False
        self.costs, self.fields = HTML(), picture()
        self.take(None)
        self.start.observe(self.take, "value")
        self.watch(self.start, *controls, self.input)
        return Box([self.start, *controls, self.input], layout=WRAPPED), self.costs, self.fields

    def take(self, _):
        """Start again from the chosen line of params.yaml."""
        with self.telling(), self.keeping_still():
            for name in self.CHOSEN:
                getattr(self, name).value = getattr(self.models[self.start.value], name)

    @property
    def model(self):
        return replace(self.models[self.start.value], **{name: getattr(self, name).value for name in self.CHOSEN})

    def redraw(self):
        design, before = self.model.architecture, self.models[self.start.value].architecture
        parameters, multiply_adds = cost.cost(design, 17, self.input.value)
        then = cost.cost(before, 17, self.input.value)
        self.costs.value = (
            f"<b>{parameters / 1e6:.2f} M</b> parameters, {100 * parameters / then[0]:.0f} % of {self.start.value}; "
            f"<b>{multiply_adds / 1e9:.2f} G</b> multiply-adds a person, {100 * multiply_adds / then[1]:.0f} %"
        )
        self.fields.value = fields_picture(design.block, cost.branch_count(design))


class SmallRun(Section):
    """A short training of a line of params.yaml, or of what the Designer has, in the background: its progress, and a
    table that it joins. `others` are sections that then offer it."""

    def build(self, dataset, designer, *others):
        self.dataset, self.designer, self.others = dataset, designer, others
        self.thread, self.cancelled = None, threading.Event()
        most = len(layout.load_store(dataset, "train"))
        self.model = Dropdown(options=[*load_params().models, DESIGNED], description="model")
        self.epochs = IntSlider(4, 1, 20, description="epochs")
        self.people = IntSlider(min(500, most), 1, most, description="people")
        self.start = ipywidgets.Button(description="start", icon="play")
        self.cancel = ipywidgets.Button(description="cancel", icon="stop", disabled=True)
        self.progress, self.doing = ipywidgets.FloatProgress(max=1), HTML()
        self.table = HTML()
        self.start.on_click(self.begin)
        self.cancel.on_click(lambda _: self.cancelled.set())
        controls = self.model, self.epochs, self.people, self.start, self.cancel
        return Box(controls, layout=WRAPPED), Box([self.progress, self.doing]), self.table

    def redraw(self):
        runs = explore.compare(self.dataset)
        table = runs.to_html(index=False, border=0, float_format="{:.2f}".format, na_rep="")
        self.table.value = f'<div class="jp-RenderedHTMLCommon">{table}</div>'

    def begin(self, _):
        with self.telling():
            designed = self.model.value == DESIGNED
            model = self.designer.model if designed else load_params().model(self.model.value)
            name = "designed" if designed else self.model.value
            self.start.disabled, self.cancel.disabled = True, False
            self.cancelled.clear()
            self.thread = threading.Thread(target=self.work, args=(model, name), daemon=True)
            self.thread.start()

    def work(self, model, name):
        """What the thread does."""
        with self.telling():
            try:
                explore.try_model(self.dataset, model, name, self.epochs.value, self.people.value, self.report)
                for section in self.others:
                    section.renew()
                self.redraw()
            except Cancelled:
                self.doing.value = "cancelled; nothing is kept"
            finally:
                self.start.disabled, self.cancel.disabled = False, True

    def report(self, share, doing):
        if self.cancelled.is_set():
            raise Cancelled
        self.progress.value, self.doing.value = share, html.escape(doing)


class Cancelled(Exception):
    """The user has had enough of a small run."""


def picture(kind="png"):
    """A place for a picture: of a drawing, "png", or of photographs, "jpeg"."""
    layout = Layout(max_width="100%", margin="0", object_fit="contain", align_self="flex-start")
    return ipywidgets.Image(format=kind, layout=layout)


def encoded(figure, kind="png"):
    """A figure as the bytes of such a picture, quickly."""
    file = io.BytesIO()
    options = {"compress_level": 1} if kind == "png" else {"quality": 92}
    figure.savefig(file, format=kind, dpi=100, pil_kwargs=options)
    plt.close(figure)
    return file.getvalue()


@lru_cache(maxsize=64)
def true_picture(dataset, weights, person):
    """heatmaps.true_person of a validation person, in the crop that a network sees."""
    people, seen = explore.people(dataset), explore.insight(dataset, weights, person)
    truth = transform(seen.matrix, people.keypoints[person])
    drawn = heatmaps.true_person(seen.crop, truth, people.visible[person], people.skeleton, f"person {person}")
    return encoded(drawn, "jpeg")


@lru_cache(maxsize=256)
def insight_picture(dataset, weights, person, stage, head, keypoint):
    """heatmaps.insight of a network and a validation person."""
    people, seen = explore.people(dataset), explore.insight(dataset, weights, person)
    truth = transform(seen.matrix, people.keypoints[person]), people.visible[person]
    return encoded(heatmaps.insight(seen, stage, head, keypoint, *truth, people.skeleton, weights.stem), "jpeg")


@lru_cache(maxsize=32)
def fields_picture(block, branches):
    """heatmaps.effective_fields of a kind of block."""
    return encoded(heatmaps.effective_fields(networks_stage.untrained_fields([(block, branches)])))
