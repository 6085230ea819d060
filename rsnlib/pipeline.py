"""The stages of dvc.yaml: what each reads, writes and where. Notebooks call these; nothing else knows the layout."""

import contextlib
import hashlib
import platform
import signal
import sys
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import papermill
import psutil
import torch
from dvclive import Live
from nbclient.exceptions import DeadKernelError
from ruamel.yaml import YAML

from rsnlib import cost, parallel
from rsnlib.augment import reach
from rsnlib.config import Model, load_params, project_root, run_name
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
from rsnlib.datasets import read_detections, read_people, withheld
from rsnlib.deploy import fuse
from rsnlib.metrics import (
    accuracy,
    box_distances,
    coco_results,
    diagnose,
    headline,
    keypoint_accuracy,
    of_people,
    person_scores,
    resampled_headline,
    suppress,
)
from rsnlib.models.checkpoints import load_model, save_model
from rsnlib.models.zoo import create_model
from rsnlib.predict import (
    WAYS,
    Poses,
    look_inside,
    predict_people,
    predict_people_in_ways,
    predict_store,
    predict_store_in_ways,
    skeleton_of,
)
from rsnlib.runtime import (
    UserError,
    choose_precision,
    default_device,
    fingerprint,
    read_json,
    whole_file,
    write_json,
    write_results,
)
from rsnlib.site import clean_notebook, made_by, notebooks_folder
from rsnlib.skeletons import SKELETONS
from rsnlib.tables import (
    ablation_caption,
    ablation_table,
    differences,
    evaluation_caption,
    evaluation_table,
    origin,
    published,
    results_caption,
    results_table,
    server_table,
    write_table,
)
from rsnlib.train import cut_crops, iterations
from rsnlib.train import train as train_model

PACKAGE = Path(__file__).parent
TRAINING_CODE = ("augment.py", "crops.py", "losses.py", "models", "parallel.py", "targets.py", "train.py")  # of PACKAGE


def crops_path(dataset, split, size=None):
    """Where a crop store lies. size: the name of one of the data set's more_input_sizes; None: its own size"""
    name = split if size is None else f"{split}-{size}"
    return project_root() / "work" / "crops" / dataset / f"{name}.safetensors"


def weights_path(dataset, model, seed):
    """Where `train` writes a run's weights."""
    return project_root() / "work" / "models" / dataset / f"{run_name(model, seed)}.safetensors"


def predictions_path(dataset, model, seed):
    """Where `evaluate` writes a run's predictions, in COCO's results format."""
    return project_root() / "work" / "predictions" / dataset / f"{run_name(model, seed)}.json"


def results_path(dataset, *parts):
    """A place among the results of a data set."""
    return project_root().joinpath("results", dataset, *parts)


def runs(dataset):
    """(model, seed) of every run of params.yaml on a data set, models in their order there."""
    run = load_params().run
    if dataset not in run.datasets:
        raise UserError(f"params.yaml: run.datasets has no {dataset!r}")
    return [(model, seed) for model in run.models for seed in run.seeds]


def load_store(dataset, split, model=None):
    """The crop store of "train" or "val", its pictures' paths as this machine has them.

    model: the name of one, for crops of the size that it sees; None: of the data set's own
    """
    params = load_params()
    settings = params.dataset(dataset, model)
    store = CropStore(crops_path(dataset, split, params.model(model).input_size if model else None))
    if store.input_size != settings.input_size:
        raise UserError(f"{store.path}: made for another input_size; run the stage `prepare` again")
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
    params = load_params()
    settings = params.dataset(dataset)
    how = settings.unusable, params.skeleton(settings)
    root = project_root()
    people = {}
    for split in ("train", "val"):
        found = read_people(root / settings.root, settings.reader, settings.splits[split], *how)
        if not found.visible.any():
            raise UserError(f"params.yaml: datasets.{dataset}.splits.{split}: nobody in it has a labelled keypoint")
        # paths as the project sees them: the store is the same bytes wherever the project lies
        relative = [Path(image).relative_to(root).as_posix() for image in found.images]
        stored = replace(found, images=np.array(relative))
        far = reach(settings.augmentation) if split == "train" else None
        for size, input_size in ({None: settings.input_size} | settings.more_input_sizes).items():
            write_crop_store(crops_path(dataset, split, size), stored, input_size, settings.enlarge, far)
        people[split] = found
    return people


def train(dataset, model, seed):
    """Train one run, or go on with it where it was interrupted; returns its curve as a data frame. Under torchrun, all
    processes together (parallel.start first)."""
    params = load_params()
    settings, description = params.dataset(dataset, model), params.model(model)
    store, validation = load_store(dataset, "train", model), load_store(dataset, "val", model)
    skeleton = store.people.skeleton
    if params.skeleton(settings) not in (None, skeleton):
        again = f"dvc repro --force --single-item prepare@{dataset}"
        raise UserError(f"{crops_path(dataset, 'train')}: made for another skeleton; make it again: `{again}`")

    # everything that a run's weights depend on, and the code
    shared = asdict(params.train) | {"precision": choose_precision(default_device(), params.train.precision)}
    identity = [asdict(settings), asdict(description), shared, seed, store.fingerprint]
    mark = fingerprint(*identity, torch.__version__)
    figure = headline(settings.reader)

    def validate(network):
        keypoints, scores = predict_store(network, validation, flip_test=False, blur=settings.blur)
        return {f"val_{figure}": accuracy(settings, project_root(), validation.people, keypoints, scores)[figure]}

    torch.manual_seed(seed)
    network = create_model(description.architecture, len(skeleton), settings.input_size)
    folder = results_path(dataset, "train", run_name(model, seed))
    with contextlib.ExitStack() as stack:

        @lru_cache
        def live():
            """Begun with the first row, once this process has the run to itself: it takes earlier curves away."""
            options = {"save_dvc_exp": False, "dvcyaml": None, "report": None, "monitor_system": False}
            return stack.enter_context(Live(str(folder), **options))

        def log(row):
            live().step = row["iteration"]
            for name, value in row.items():
                if name != "iteration":
                    live().log_metric(name, value)

        network, curve = train_model(
            network,
            store,
            settings,
            settings.schedule,
            seed=seed,
            train=params.train,
            intermediate_supervision=description.intermediate_supervision,
            hard_keypoints=description.hard_keypoints,
            validate=validate,
            state=project_root() / "work" / "state" / fingerprint(mark, _digests(PACKAGE, TRAINING_CODE)),
            log=log,
        )
    about = {"model": model, "dataset": dataset, "skeleton": skeleton.description, "seed": seed, "params": mark}
    about |= {"enlarge": settings.enlarge, "blur": settings.blur, "machine": machine()}
    about["categories"] = np.unique(store.people.categories).tolist()
    if parallel.rank() == 0:
        save_model(network, weights_path(dataset, model, seed), about)
    return pd.DataFrame(curve)


def load_curve(dataset, model, seed):
    """The training curve of a run: one row a log, columns iteration, epoch, loss, learning_rate and the
    validation figure."""
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
    """Judge one run on the validation people, or in the boxes of evaluate.detections, in all of predict.WAYS; returns
    the figures of the way that evaluate.flip_test and evaluate.decoding choose.

    results/<dataset>/evaluate/: <run>.json, these figures; in <run>/ variants.csv, flip_test, decoding and the figures
    of every way, and errors.csv, gains.csv and groups.csv, what `metrics.diagnose` says of the chosen one
    """
    params = load_params()
    settings, options = params.dataset(dataset), params.evaluate
    network = fuse(load_run(dataset, model, seed)).to(default_device(), getattr(torch, options.precision))
    store = load_store(dataset, "val", model)
    if dataset in options.detections:
        people = evaluation_people(dataset)
        predicted = predict_people_in_ways([network], people, settings.enlarge, WAYS, settings.blur)
    else:
        people = store.people
        predicted = predict_store_in_ways(network, store, WAYS, settings.blur)
    judged = {way: judge(settings, options, people, *each) for way, each in zip(WAYS, zip(*predicted), strict=True)}
    results, figures = judged[options.flip_test, options.decoding]
    write_results(predictions_path(dataset, model, seed), results)
    write_json(results_path(dataset, "evaluate", f"{run_name(model, seed)}.json"), figures)
    rows = [
        {"flip_test": str(flip_test).lower(), "decoding": decoding, **judged[flip_test, decoding][1]}
        for flip_test, decoding in WAYS
    ]
    found = {"variants": pd.DataFrame(rows), **diagnose(settings, project_root(), store.people, results)}
    for name, table in found.items():
        with whole_file(evaluation_path(dataset, model, seed, name), "w") as file:
            table.to_csv(file, index=False, lineterminator="\n")
    return figures


def evaluation_path(dataset, model, seed, name):
    """Where `evaluate` writes what `load_evaluation` reads."""
    return results_path(dataset, "evaluate", run_name(model, seed), f"{name}.csv")


def load_evaluation(dataset, model, seed, name):
    """What `evaluate` found about a run, a data frame: "variants", "errors", "gains" or "groups"."""
    path = evaluation_path(dataset, model, seed, name)
    if not path.is_file():
        raise UserError(f"{path}: no such file; the stage `evaluate` writes it")
    return pd.read_csv(path)


def load_evaluations(dataset, name):
    """`load_evaluation` of every run on a data set that params.yaml names: {run: data frame}."""
    return {run_name(*run): load_evaluation(dataset, *run, name) for run in runs(dataset)}


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
    skeleton = params.skeleton(settings)
    if detections is None:
        return read_people(folder, settings.reader, split, settings.unusable, skeleton)
    if settings.reader != "coco":
        raise UserError(f"{detections}: detections are for data sets in COCO's format, which {dataset} is not")
    return read_detections(detections, folder, split, skeleton)


def judge(settings, options, people, keypoints, scores, annotated=True):
    """Predictions in COCO's results format, beside it the person's id as "person_id", and their figures (None of people
    who are not annotated), after the suppression that `options`, config.Evaluate, ask for."""
    if options.nms and settings.reader == "coco":
        people, keypoints, scores = suppress(people, keypoints, scores, options.nms, options.nms_threshold)
    results = coco_results(people.image_ids, keypoints, scores, people.scores, people.boxes, people.categories)
    for result, person in zip(results, people.ids.tolist(), strict=True):
        result["person_id"] = person
    return results, accuracy(settings, project_root(), people, keypoints, scores) if annotated else None


def evaluate_weights(weights, dataset, split=None, detections=None):
    """Judge one network, or several as an ensemble, on the `evaluation_people` of a data set of params.yaml: their
    predictions in COCO's results format, and figures, None for a test split.

    weights: paths of files of ours; their input sizes may differ but for the aspect
    """
    params = load_params()
    settings, options = params.dataset(dataset), params.evaluate
    models = [fuse(load_model(path)).to(default_device(), getattr(torch, options.precision)) for path in weights]
    people = evaluation_people(dataset, split, detections)
    for model, path in zip(models, weights):
        if model.keypoints != len(people.skeleton):
            raise UserError(f"{path}: has {model.keypoints} keypoints, {dataset} {len(people.skeleton)}")
        skeleton = skeleton_of(model) if "skeleton" in model.about else people.skeleton
        if skeleton.keypoints != people.skeleton.keypoints:
            raise UserError(f"{path}: is of the skeleton {skeleton.name}, {dataset} of {people.skeleton.name}")
    how = options.flip_test, settings.blur, options.decoding
    predicted = predict_people(models, people, settings.enlarge, *how)
    if split is not None:
        settings = replace(settings, splits=settings.splits | {"val": split})
    return judge(settings, options, people, *predicted, not withheld(settings.reader, settings.splits["val"]))


def load_figures(dataset):
    """The figures of every run on a data set that params.yaml names: a data frame, one row a run; input is the size
    of its crops, as "256x192"."""
    params = load_params()
    rows = []
    for model, seed in runs(dataset):
        figures = read_json(results_path(dataset, "evaluate", f"{run_name(model, seed)}.json"))
        size = "x".join(map(str, params.dataset(dataset, model).input_size))
        rows.append({"model": model, "seed": seed, "input": size, **figures})
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
    return cut_crops(rows, store, settings, np.random.default_rng(0))[0]


def load_draws(dataset):
    """The headline figure of every run on a data set, on the same resampled validation pictures for all: {model: array
    (seeds, draws)}, in the unit of `load_figures`."""
    settings = load_params().dataset(dataset)
    people = load_store(dataset, "val").people
    draws = {}
    for model, seed in runs(dataset):
        results = read_json(predictions_path(dataset, model, seed))
        draws.setdefault(model, []).append(resampled_headline(settings, project_root(), people, results))
    return {model: np.stack(seeds) for model, seeds in draws.items()}


def tables(dataset):
    """Write every table of a data set: its results, each group of `ablations` of which two models are run and what
    these say in words, and the published results of its test people. Returns their Markdown, {title: text}."""
    params = load_params()
    settings, seeds, folder = params.dataset(dataset), len(params.run.seeds), results_path(dataset, "tables")
    figures, draws, made = load_figures(dataset), load_draws(dataset), run_origin(dataset)

    table, text = results_table(figures, draws, dataset, settings), results_caption(settings, seeds, made)
    written = {"Results": write_table(table, folder, "results", text)}

    ablations = {}
    for name, group in params.ablations.items():
        models = [model for model in group if model in params.run.models]
        if len(models) > 1:
            costs = {model: run_cost(dataset, model) for model in models}
            ablations[name] = ablation_table(figures, draws, models, costs, settings)
    written["Differences"] = differences(ablations, dataset, settings.reader, seeds)
    with whole_file(folder / "differences.md", "w") as file:
        file.write(written["Differences"])
    text = ablation_caption(settings, seeds, made)
    formats = {"difference": "{:+z.1f}", "parameters (M)": "{:.2f}", "multiply-adds (G)": "{:.2f}"}
    for name, table in ablations.items():
        written[f"Ablation: {name}"] = write_table(table, folder, f"ablation-{name}", text, formats=formats)

    variants = [
        load_evaluation(dataset, model, seed, "variants").assign(model=model, seed=seed)
        for model, seed in runs(dataset)
    ]
    table = evaluation_table(pd.concat(variants, ignore_index=True), settings.reader)
    written["Ways of evaluating"] = write_table(table, folder, "evaluation", evaluation_caption(made))

    table = server_table(dataset, settings)
    if table is not None:
        text = "As published, per cent. Ours are missing: only the data set's own server can judge its test people."
        written["Test people"] = write_table(table, folder, "test", text)
    return written


def run_cost(dataset, model):
    """(parameters, multiply-adds) of a trained network, for one person."""
    network = load_run(dataset, model, load_params().run.seeds[0])
    return cost.cost(network.architecture, network.keypoints, network.input_size)


def run_origin(dataset):
    """What the runs on a data set were made of, in words (tables.origin)."""
    params = load_params()
    settings = params.dataset(dataset)
    stores = {split: CropStore(crops_path(dataset, split)) for split in ("train", "val")}
    people = {split: len(store) for split, store in stores.items()}
    trained_as = [load_run(dataset, model, seed).about for model, seed in runs(dataset)]
    return origin(
        dataset,
        people,
        iterations(settings.schedule, people["train"], params.train.epochs),
        settings.schedule.batch_size,
        ", ".join(dict.fromkeys(about.get("machine", "an unrecorded machine") for about in trained_as)),
        {
            "parameters": fingerprint([about["params"] for about in trained_as], asdict(params.evaluate)),
            "data": fingerprint([store.fingerprint for store in stores.values()]),
            "code": code_fingerprint("prepare", "train", "evaluate", "tables"),
        },
        dataset in params.evaluate.detections,
    )


def code_fingerprint(*stages):
    """Stands for the code that stages of dvc.yaml depend on: rooms of rsnlib and notebooks."""
    root = project_root()
    known = YAML(typ="safe").load(root / "dvc.yaml")["stages"]
    paths = [path for stage in stages for path in known[stage]["deps"] if path.startswith(("rsnlib", "notebooks"))]
    return fingerprint(_digests(root, paths))


def _digests(root, paths):
    """{path below `root`: SHA-256} of files, and of the code in folders."""
    paths = [Path(root, path) for path in paths]
    folders = [path for path in paths if path.is_dir()]
    files = {file for folder in folders for kind in ("*.py", "*.c") for file in folder.rglob(kind)}
    files |= set(paths) - set(folders)
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def networks():
    """Write the tables of what every network of params.yaml costs and how far its blocks see; returns both. Lines of
    `models` that only train a network otherwise are left out."""
    lines = load_params().models.items()
    models = {name: line.architecture for name, line in lines if line == Model(**asdict(line.architecture))}
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
    marks = fingerprint({name: asdict(model) for name, model in models.items()}), code_fingerprint("networks")
    made = "Fingerprints: parameters {}, code {}.".format(*marks)
    text = f"Cost of every network of params.yaml for one person; published: the paper's GFLOPs. {made}"
    write_table(table, folder, "networks", text, decimals=3)
    text = f"Receptive fields, in cells of the block's input, that reach the end of each branch of a block. {made}"
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
    settings = load_params().dataset(dataset, model)
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
    store = load_store(dataset, "val", model)
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
    counts = [
        cost.cost(models[model].architecture, keypoints, size)[1] / 1e9 for model, size in zip(table["model"], sizes)
    ]
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
    comparable = dataset == settings.reader and published(settings.reader, settings.skeleton) is not None
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
    """Execute notebooks/<name>.ipynb with papermill: the executed copy goes to work/notebooks/, for the site.

    parameters: dataset where the notebook is about one, model and seed where it is about one run. Output appears on
    the terminal as it comes. A UserError inside the notebook is raised here, with its message alone.
    """
    root = project_root()
    source = root / "notebooks" / f"{name}.ipynb"
    if not source.is_file():
        raise UserError(f"{source}: no such notebook")
    made_by(name, parameters)  # before anything is executed
    where = Path(parameters.get("dataset", ""), name)
    if "model" in parameters:
        where /= run_name(parameters["model"], parameters["seed"])
    executed = notebooks_folder() / f"{where}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    stopped = []

    def stop(*received):
        """Pass SIGTERM on to the kernel, which a training answers by keeping its state."""
        stopped.append(received)
        for child in psutil.Process().children():
            child.terminate()

    before = signal.signal(signal.SIGTERM, stop)
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
        print(file=sys.stderr)  # a progress bar leaves its line open
        if error.ename == "UserError":
            raise UserError(error.evalue) from None
        print("\n".join(error.traceback), file=sys.stderr)
        raise UserError(f"{source.relative_to(root)} failed: {error.ename}: {error.evalue}; see {executed}") from None
    except DeadKernelError:
        print(file=sys.stderr)
        why = "stopped by SIGTERM" if stopped else "its kernel died; is there too little memory?"
        raise UserError(f"{source.relative_to(root)}: {why}") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    clean_notebook(executed, made_by(name, parameters))


def machine():
    """The hardware and software of this machine in a few words."""
    threads = torch.get_num_threads()
    cpu = f"{threads} CPU thread" + ("s" if threads > 1 else "")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    return f"{device}, torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}"
