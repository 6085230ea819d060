"""The stages of dvc.yaml: what each reads, writes and where. Notebooks call these; nothing else knows the layout."""

import platform
import sys
from dataclasses import asdict, replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import torch
from dvclive import Live
from nbconvert import HTMLExporter

from rsnlib import cost
from rsnlib.augment import reach
from rsnlib.config import load_params, project_root
from rsnlib.crops import (
    CropStore,
    crop_matrix,
    evaluation_region,
    normalise,
    read_image,
    transform,
    warp,
    write_crop_store,
)
from rsnlib.datasets import read_detections, read_people
from rsnlib.metrics import (
    accuracy,
    box_distances,
    coco_results,
    headline,
    keypoint_accuracy,
    of_people,
    person_scores,
    suppress,
)
from rsnlib.models.checkpoints import load_model, save_model
from rsnlib.models.zoo import create_model
from rsnlib.predict import Poses, look_inside, predict_people, predict_store
from rsnlib.runtime import UserError, default_device, fingerprint, read_json, whole_file, write_json
from rsnlib.skeletons import SKELETONS
from rsnlib.tables import caption, published, results_table, write_table
from rsnlib.train import STATE_VERSION, cut_crops
from rsnlib.train import train as train_model


def run_name(model, seed):
    return f"{model}-{seed}"


def crops_path(dataset, split):
    return project_root() / "work" / "crops" / dataset / f"{split}.safetensors"


def weights_path(dataset, model, seed):
    return project_root() / "work" / "models" / dataset / f"{run_name(model, seed)}.safetensors"


def predictions_path(dataset, model, seed):
    return project_root() / "work" / "predictions" / dataset / f"{run_name(model, seed)}.json"


def results_path(dataset, *parts):
    return project_root().joinpath("results", dataset, *parts)


def runs(dataset):
    """(model, seed) of every run of params.yaml on a data set, models in their order there."""
    run = load_params().run
    if dataset not in run.datasets:
        raise UserError(f"params.yaml: run.datasets has no {dataset!r}")
    return [(model, seed) for model in run.models for seed in run.seeds]


def load_store(dataset, split):
    """The crop store of "train" or "val", its pictures' paths as this machine has them."""
    store = CropStore(crops_path(dataset, split))
    images = [str(project_root() / image) for image in store.people.images]
    store.people = replace(store.people, images=np.array(images))
    return store


def load_run(dataset, model, seed):
    """The trained network of a run."""
    return load_model(weights_path(dataset, model, seed))


def trained():
    """{data set and run: path} of all weights that trainings left, the newest first."""
    folder = project_root() / "work" / "models"
    paths = sorted(folder.glob("*/*.safetensors"), key=lambda path: -path.stat().st_mtime)
    if not paths:
        raise UserError(f"{folder}: no weights; the stage `train` writes them")
    return {f"{path.parent.name} {path.stem}": path for path in paths}


def load_poses(dataset, model, seed):
    """Everyone a run predicted for the validation pictures: image ids (P,) and Poses."""
    return read_poses(predictions_path(dataset, model, seed))


def read_poses(path):
    """The same from the file of predictions."""
    results = read_json(path)
    values = np.array([result["keypoints"] for result in results]).reshape(len(results), -1, 3)
    image_ids, boxes, score = (np.array([result[key] for result in results]) for key in ("image_id", "box", "score"))
    return image_ids, Poses(values[..., :2], values[..., 2], boxes, score / values[..., 2].mean(axis=1), score)


def prepare(dataset):
    """Read a data set, check every file, write its crop stores; returns the people of each split, {split: People}."""
    settings = load_params().dataset(dataset)
    root = project_root()
    people = {}
    for split in ("train", "val"):
        found = read_people(root / settings.root, settings.reader, settings.splits[split], settings.unusable)
        # paths as the project sees them: the store is the same bytes wherever the project lies
        relative = [Path(image).relative_to(root).as_posix() for image in found.images]
        stored = replace(found, images=np.array(relative))
        far = reach(settings.augmentation) if split == "train" else None
        write_crop_store(crops_path(dataset, split), stored, settings.input_size, settings.enlarge, far)
        people[split] = found
    return people


def train(dataset, model, seed):
    """Train one run, or go on with it where it was interrupted; returns its curve as a data frame."""
    params = load_params()
    settings, architecture = params.dataset(dataset), params.model(model)
    store, validation = load_store(dataset, "train"), load_store(dataset, "val")
    if store.input_size != settings.input_size:
        raise UserError(f"{crops_path(dataset, 'train')}: made for another input_size; run the stage `prepare` again")
    skeleton = store.people.skeleton

    # everything that a run's weights depend on
    identity = [asdict(settings), asdict(architecture), asdict(params.train), seed, store.fingerprint, STATE_VERSION]
    mark = fingerprint(*identity, torch.__version__)
    figure = headline(settings.reader)

    def validate(network):
        keypoints, scores = predict_store(network, validation, flip_test=False, blur=settings.blur)
        return {f"val_{figure}": accuracy(settings, project_root(), validation.people, keypoints, scores)[figure]}

    torch.manual_seed(seed)
    network = create_model(asdict(architecture), len(skeleton), settings.input_size)
    folder = results_path(dataset, "train", run_name(model, seed))
    with Live(str(folder), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False) as live:

        def log(row):
            live.step = row["iteration"]
            for name, value in row.items():
                if name != "iteration":
                    live.log_metric(name, value)

        network, curve = train_model(
            network,
            store,
            settings,
            settings.schedule,
            seed=seed,
            train=params.train,
            validate=validate,
            state=project_root() / "work" / "state" / mark / "state.pt",
            log=log,
        )
    about = {"model": model, "dataset": dataset, "skeleton": skeleton.name, "seed": seed, "params": mark}
    about |= {"enlarge": settings.enlarge, "blur": settings.blur}
    save_model(network, weights_path(dataset, model, seed), about)
    return pd.DataFrame(curve)


def load_curve(dataset, model, seed):
    """The training curve of a run: one row a log, columns iteration, loss, learning_rate and the validation figure."""
    folder = results_path(dataset, "train", run_name(model, seed), "plots", "metrics")
    columns = [pd.read_csv(path, sep="\t").set_index("step") for path in sorted(folder.glob("*.tsv"))]
    if not columns:
        raise UserError(f"{folder}: no training curves; run the stage `train`")
    return pd.concat(columns, axis=1).rename_axis("iteration").reset_index()


def load_curves(dataset):
    """The rows of `load_curve` of every run on a data set, with its model and seed."""
    curves = [load_curve(dataset, model, seed).assign(model=model, seed=seed) for model, seed in runs(dataset)]
    return pd.concat(curves, ignore_index=True)


def evaluate(dataset, model, seed):
    """Judge one run on the validation people, or in the boxes of evaluate.detections; returns its figures."""
    params = load_params()
    settings, options = params.dataset(dataset), params.evaluate
    network = load_run(dataset, model, seed).to(default_device())
    how = options.flip_test, settings.blur, options.decoding
    if dataset in options.detections:
        people = evaluation_people(dataset)
        predicted = predict_people([network], people, settings.enlarge, *how)
    else:
        store = load_store(dataset, "val")
        people = store.people
        predicted = predict_store(network, store, *how)
    results, figures = judge(settings, options, people, *predicted)
    write_json(predictions_path(dataset, model, seed), results)
    write_json(results_path(dataset, "evaluate", f"{run_name(model, seed)}.json"), figures)
    return figures


def evaluation_people(dataset, split=None, detections=None):
    """The people of a data set to judge a network on: those of a split's annotations or, where there are detections,
    those in the detector's boxes.

    split: None: the validation split; detections: a path, None: what evaluate.detections has for the data set
    """
    params = load_params()
    settings = params.dataset(dataset)
    folder, split = project_root() / settings.root, split or settings.splits["val"]
    if detections is None and dataset in params.evaluate.detections:
        detections = folder / params.evaluate.detections[dataset]
    if detections is None:
        return read_people(folder, settings.reader, split, settings.unusable)
    if settings.reader != "coco":
        raise UserError(f"{detections}: detections are for data sets in COCO's format, which {dataset} is not")
    return read_detections(detections, folder, split)


def judge(settings, options, people, keypoints, scores, annotated=True):
    """Predictions in COCO's results format and their figures (None of people who are not annotated), after the
    suppression that `options`, config.Evaluate, ask for."""
    if options.nms and settings.reader == "coco":
        people, keypoints, scores = suppress(people, keypoints, scores, options.nms, options.nms_threshold)
    results = coco_results(people.image_ids, keypoints, scores, people.scores, people.boxes)
    return results, accuracy(settings, project_root(), people, keypoints, scores) if annotated else None


def evaluate_weights(weights, dataset, split=None, detections=None):
    """Judge one network, or several as an ensemble, on the `evaluation_people` of a data set of params.yaml: their
    predictions in COCO's results format, and figures, None for a test split of COCO.

    weights: paths of files of ours; their input sizes may differ but for the aspect
    """
    params = load_params()
    settings, options = params.dataset(dataset), params.evaluate
    models = [load_model(path).to(default_device()) for path in weights]
    people = evaluation_people(dataset, split, detections)
    for model, path in zip(models, weights):
        if model.keypoints != len(people.skeleton):
            raise UserError(f"{path}: has {model.keypoints} keypoints, {dataset} {len(people.skeleton)}")
    how = options.flip_test, settings.blur, options.decoding
    predicted = predict_people(models, people, settings.enlarge, *how)
    if split is not None:
        settings = replace(settings, splits=settings.splits | {"val": split})
    annotated = not str(settings.splits["val"]).startswith("test")
    return judge(settings, options, people, *predicted, annotated)


def load_figures(dataset):
    """The figures of every run on a data set that params.yaml names: a data frame, one row a run."""
    rows = []
    for model, seed in runs(dataset):
        figures = read_json(results_path(dataset, "evaluate", f"{run_name(model, seed)}.json"))
        rows.append({"model": model, "seed": seed, **figures})
    return pd.DataFrame(rows)


def describe(people):
    """What `prepare` found: a data frame, one row a split, and the people left out beneath, as a string a row."""
    rows = [
        {
            "split": split,
            "people": len(found),
            "pictures": found.image_count,
            "labelled keypoints": int((found.visible > 0).sum()),
            "left out": len(found.unusable),
            "why": "; ".join(f"{identity}: {reason}" for identity, reason in found.unusable),
        }
        for split, found in people.items()
    ]
    return pd.DataFrame(rows)


def training_crops(dataset, people, variations):
    """The first `people` of the training split in `variations` draws each, as training sees them: crops, keypoints
    (N, K, 2) in them and visible (N, K)."""
    settings = load_params().dataset(dataset)
    store = load_store(dataset, "train")
    rows = np.repeat(np.arange(min(people, len(store))), variations)
    return cut_crops(rows, store, settings, np.random.default_rng(0))


def tables(dataset):
    """Write the results table of a data set; returns it and its caption."""
    settings = load_params().dataset(dataset)
    people = len(CropStore(crops_path(dataset, "val")))
    table = results_table(load_figures(dataset), dataset, settings)
    text = caption(dataset, settings, people, machine(), detected=dataset in load_params().evaluate.detections)
    write_table(table, results_path(dataset, "tables"), "results", text)
    return table, text


def networks():
    """Write the tables of what every network of params.yaml costs and how far its blocks see; returns both."""
    models = load_params().models
    table = cost.networks(models)
    table = pd.DataFrame(
        {
            "model": table["model"],
            "input": table["input"],
            "parameters (M)": table["parameters"] / 1e6,
            "multiply-adds (G)": table["multiply_adds"] / 1e9,
            "published (G)": table["published"] / 1e9,
            "ratio": table["ratio"],
        }
    )
    fields = cost.receptive_fields(models)
    fields.columns = [f"branch {name}" if isinstance(name, int) else name for name in fields.columns]
    folder = project_root() / "results" / "networks"
    text = "Cost of every network of params.yaml for one person; published: the paper's GFLOPs."
    write_table(table, folder, "networks", text, decimals=3)
    text = "Receptive fields, in cells of the block's input, that reach the end of each branch of a block."
    write_table(fields, folder, "receptive-fields", text)
    return table, fields


def save_figure(figure, dataset, name):
    """Keep a figure as results/<dataset>/figures/<name>, a .png, or a .jpg where it is of photographs.

    dataset: None for what is of networks, not of a data set: results/networks/<name>
    """
    path = results_path(dataset, "figures", name) if dataset else results_path("networks", name)
    with whole_file(path) as file:
        figure.savefig(file, dpi=100, format=path.suffix[1:])


def pictures(dataset, model, seed, count):
    """The first validation pictures with a run's poses: image, keypoints (P, K, 2) and boxes (P, 4) of each."""
    image_ids, poses = load_poses(dataset, model, seed)
    found = []
    for image_id, path in list(picture_paths(dataset).items())[:count]:
        here = image_ids == image_id
        found.append((read_image(path), poses.keypoints[here], poses.boxes[here]))
    return found


def picture_paths(dataset):
    """The pictures of the validation people, in order: {image id: path}."""
    people = load_store(dataset, "val").people
    paths, first = np.unique(people.images, return_index=True)
    return dict(zip(people.image_ids[first].tolist(), paths.tolist()))


def predicted_crops(dataset, model, seed, count):
    """The first of a run's predictions in the crops they were made of: crops (N, H, W, 3), keypoints (N, K, 2) in them
    and scores (N, K)."""
    settings = load_params().dataset(dataset)
    image_ids, poses = load_poses(dataset, model, seed)
    paths = picture_paths(dataset)
    rows = [row for row, image_id in enumerate(image_ids) if image_id in paths][:count]
    region = evaluation_region(poses.boxes[rows], settings.input_size, settings.enlarge)
    matrices = crop_matrix(*region, 0, settings.input_size)
    crops = warp([read_image(paths[image_id]) for image_id in image_ids[rows]], matrices, settings.input_size)
    return crops.numpy(), transform(matrices, poses.keypoints[rows]), poses.scores[rows]


def heads_of(dataset, model, seed, person, keypoint):
    """One validation person's crop (H, W, 3), the heatmaps of every head of a run (stages, 4, K, h, w) and the name of
    the keypoint, an index."""
    store = load_store(dataset, "val")
    crop = store.window(person)
    network = load_run(dataset, model, seed)
    with torch.no_grad():
        heads = network.heads(normalise(crop[None]))[0].numpy()
    return crop, heads, store.people.skeleton.keypoints[keypoint].replace("_", " ")


def refined_runs(dataset):
    """`runs` whose networks have the Pose Refine Machine."""
    models = load_params().models
    return [run for run in runs(dataset) if models[run[0]].attention in ("prm", "prm-mmpose")]


def attention_of(dataset, model, seed, person):
    """One validation person's crop (H, W, 3) and what the Pose Refine Machine of a run's last head weighs: channel (K,)
    and position (K, h, w)."""
    people = load_store(dataset, "val").people
    seen = look_inside(load_run(dataset, model, seed), read_image(people.images[person]), people.boxes[person])
    return seen.crop, *seen.attention[max(seen.attention)]


def trained_fields(dataset, people=16):
    """The effective receptive fields of the first block of every model trained on a data set (from its first seed), on
    the first validation people, as figures.effective_fields takes them."""
    store = load_store(dataset, "val")
    images = normalise(np.stack([store.window(row) for row in range(min(people, len(store)))]))
    fields = {}
    for model, seed in runs(dataset):
        if model not in fields:
            network = load_run(dataset, model, seed)
            kind = network.architecture.block, cost.branch_count(network.architecture)
            fields[model] = cost.effective_fields(network, images), cost.field_sizes(*kind)
    return fields


def untrained_fields(kinds):
    """The same of untrained networks. kinds: a (block, branches) a row"""
    fields = {}
    for block, branches in kinds:
        name = block.replace("_", " ") + (f"\n{branches} branches" if branches > 1 else "")
        fields[name] = cost.untrained_fields(block, branches), cost.field_sizes(block, branches)
    return fields


def published_costs(reader):
    """The published validation accuracy of every network of params.yaml on a data set of that reader, against its cost:
    a data frame with columns model, source, input, multiply_adds (G, counted here as for ours) and accuracy (%)."""
    models = load_params().models
    table = published(reader).query("split == 'val'").dropna(subset="input")
    table = table[table["model"].isin(models.keys())]
    sizes = [tuple(map(int, size.split("x"))) for size in table["input"]]
    keypoints = len(SKELETONS[reader])
    counts = [cost.cost(models[model], keypoints, size)[1] / 1e9 for model, size in zip(table["model"], sizes)]
    table = table.assign(multiply_adds=counts).rename(columns={headline(reader): "accuracy"})
    return table[["model", "source", "input", "multiply_adds", "accuracy"]]


def costs(dataset):
    """The accuracy of every run on a data set against its cost, as `published_costs`, with the published ones where
    they are of that data set."""
    settings = load_params().dataset(dataset)
    percent = 100 if settings.reader == "coco" else 1
    rows = []
    for run in load_figures(dataset).to_dict("records"):
        network = load_run(dataset, run["model"], run["seed"])
        _, multiply_adds = cost.cost(network.architecture, network.keypoints, network.input_size)
        size, accuracy = "x".join(map(str, network.input_size)), percent * run[headline(settings.reader)]
        rows.append((run["model"], "this run", size, multiply_adds / 1e9, accuracy))
    ours = pd.DataFrame(rows, columns=["model", "source", "input", "multiply_adds", "accuracy"])
    comparable = dataset == settings.reader and published(settings.reader) is not None
    return pd.concat([published_costs(settings.reader), ours], ignore_index=True) if comparable else ours


def predicted_people(dataset, path):
    """The validation people and where the predictions in a file have each: keypoints (P, K, 2), NaN for people whom
    nobody predicted."""
    people = load_store(dataset, "val").people
    image_ids, poses = read_poses(path)
    return people, of_people(people, image_ids, poses.boxes, poses.keypoints)


def accuracy_by_keypoint(dataset):
    """How often every run on a data set has each keypoint right: columns model, seed, keypoint and accuracy (%)."""
    tables = []
    for model, seed in runs(dataset):
        people, keypoints = predicted_people(dataset, predictions_path(dataset, model, seed))
        shares = keypoint_accuracy(box_distances(keypoints, people))
        columns = {"model": model, "seed": seed, "keypoint": people.skeleton.keypoints, "accuracy": shares}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def best_and_worst(dataset, model, seed, count=4):
    """A run's predictions of the people whom it got best, worst, and as well as half of all, as figures.predictions
    takes them."""
    store = load_store(dataset, "val")
    people, keypoints = predicted_people(dataset, predictions_path(dataset, model, seed))
    scores = person_scores(keypoints, people)
    order = np.argsort(-scores, kind="stable")[: np.isfinite(scores).sum()]
    middle = max(0, (len(order) - count) // 2)
    rows = {"best": order[:count], "median": order[middle : middle + count], "worst": order[-count:]}
    truth, predicted = transform(store.matrices, people.keypoints), transform(store.matrices, keypoints)
    measure = "similarity" if people.skeleton.sigmas else "share right"
    return {
        kind: [(store.window(p), truth[p], people.visible[p], predicted[p], f"{measure} {scores[p]:.2f}") for p in some]
        for kind, some in rows.items()
    }


def run_notebook(name, parameters):
    """Execute notebooks/<name>.ipynb with papermill: the executed copy goes to work/, a page of it to results/.

    parameters: dataset where the notebook is about one, model and seed where it is about one run. Output appears on
    the terminal as it comes. A UserError inside the notebook is raised here, with its message alone.
    """
    root = project_root()
    source = root / "notebooks" / f"{name}.ipynb"
    if not source.is_file():
        raise UserError(f"{source}: no such notebook")
    where = Path(parameters.get("dataset", ""), name)
    if "model" in parameters:
        where /= run_name(parameters["model"], parameters["seed"])
    executed = root / "work" / "notebooks" / f"{where}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(source),
            str(executed),
            parameters,
            cwd=str(root),
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            coalesce_streams=True,
            # photographs: JPEG keeps the pages small
            extra_arguments=["--IPKernelApp.log_level=CRITICAL", "--InlineBackend.figure_formats=jpeg"],
        )
    except papermill.PapermillExecutionError as error:
        if error.ename == "UserError":
            raise UserError(error.evalue) from None
        print("\n".join(error.traceback), file=sys.stderr)
        raise UserError(f"{source.relative_to(root)} failed: {error.ename}: {error.evalue}; see {executed}") from None
    write_page(executed, root / "results" / f"{where}.html")


WIDGET = "application/vnd.jupyter.widget-view+json"
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ max-width: 100%; }} pre {{ overflow-x: auto; background: #f4f4f4; padding: .5rem .8rem; font-size: .85em; }}
table {{ border-collapse: collapse; font-size: .9em; display: block; overflow-x: auto; }}
td, th {{ padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: right; }}
.prompt, .anchor-link {{ display: none; }}
</style></head><body>{body}</body></html>
"""


def write_page(notebook, path):
    """One HTML page, complete in itself, of an executed notebook."""
    contents = nbformat.read(notebook, 4)
    contents.metadata.pop("widgets", None)
    for cell in contents.cells:  # papermill's own cell and progress bars are of no interest to a reader
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if output.get("name") != "stderr" and WIDGET not in output.get("data", {})
            ]
    contents.cells = [cell for cell in contents.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(contents)
    title = next(
        (c.source.splitlines()[0].lstrip("# ") for c in contents.cells if c.cell_type == "markdown"), path.stem
    )
    with whole_file(path, "w") as file:
        file.write(PAGE.format(title=title, body=body))


def machine():
    """The hardware and software of this machine in a few words."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    return f"{device}, torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}"
