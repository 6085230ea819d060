"""Stage `weights`: a run's weights as a small file for everyone, and its card."""

from rsnlib.config import load_params
from rsnlib.errors import UserError
from rsnlib.files import whole_file
from rsnlib.metrics import protocol
from rsnlib.metrics.bootstrap import interval
from rsnlib.models.checkpoints import load_model, save_model
from rsnlib.models.zoo import describe
from rsnlib.stages.artifacts import load_run
from rsnlib.stages.evaluate import evaluate_weights
from rsnlib.stages.layout import released_path, run_name
from rsnlib.stages.results import load_evaluation, load_report

LARGEST_FILE = 20 * 2**20  # bytes: the file is committed

CARD = """# {title}

`rsnlib.load_model("rsnlib/{name}")`; made by the stage `weights` from the run `{run}` on `{dataset}`.

| | |
|---|---|
| network | {network}; {parameters:.2f} M parameters, {multiply_adds:.2f} G multiply-adds per person at {input} |
| keypoints | {keypoints} |
| learnt from | {people} people of `{dataset}`, {seen} seen in {iterations} iterations of {batch}; seed {seed} |
| recipe | {recipe} |
| augmentation | {augmentation} |
| accuracy | {metric} {score:.1f} [{low:.1f}, {high:.1f}] on {judged} people nobody trained on (true boxes, {way}) |
| trained on | {machine} |
| for whom | {licence} |

{description}; per cent, in brackets the 95 % interval over people (bootstrap) of the run. The file holds the run's
weights in half precision, and the accuracy is measured with the file.
"""


def release(name):
    """Write the run that `release` of params.yaml lists under `name` as weights/<name>.safetensors, in half
    precision, and beside it the card <name>.md.

    Raises UserError where there is no such name, and for a network too large to be committed.
    """
    params = load_params()
    if name not in params.release:
        raise UserError(f"params.yaml: release has no {name!r}")
    chosen = params.release[name]
    run = chosen.dataset, chosen.model, chosen.seed
    network, report = load_run(*run), load_report(*run)
    size = 2 * sum(tensor.numel() for tensor in network.state_dict().values())
    if size > LARGEST_FILE:
        limit = f"{size >> 20} MiB in half precision, and a file for everyone has at most {LARGEST_FILE >> 20}"
        raise UserError(f"params.yaml: release.{name}: {chosen.model} takes {limit}")
    path, judge = released_path(name), protocol(*params.judged_by(chosen.dataset))
    seen = report["iterations"] * report["batch_size"]
    about = network.about | {"licence": chosen.licence, "people_seen": seen}
    save_model(network.half(), path, about)
    _, metrics = evaluate_weights([path], chosen.dataset)
    score = judge.per_cent * metrics[judge.metric]
    save_model(network, path, about | {"metrics": metrics})
    with whole_file(path.with_suffix(".md"), "w") as file:
        file.write(_card(name, chosen, load_model(path), report, score, judge, params))


def _card(name, chosen, network, report, score, judge, params):
    """Return the card, Markdown. score: of the file, per cent"""
    settings, about = params.dataset(chosen.dataset, chosen.model), network.about
    recipe, augmentation, evaluation = settings.recipe, settings.augmentation, report["evaluation"]
    draws = load_evaluation(chosen.dataset, chosen.model, chosen.seed, "draws")[judge.metric]
    low, high = interval(judge.per_cent * draws)
    flip = "flip test" if evaluation["flip_test"] else "no flip test"
    hard = params.model(chosen.model).training.hard_keypoints
    return CARD.format(
        title=f"{chosen.model}, trained on {chosen.dataset}",
        name=name,
        run=run_name(chosen.model, chosen.seed),
        dataset=chosen.dataset,
        network=describe(network.architecture),
        parameters=report["parameters"] / 1e6,
        multiply_adds=report["multiply_adds"] / 1e9,
        input=report["input"],
        keypoints=", ".join(params.skeleton(settings).keypoints),
        people=f"{report['people']['train']:,}",
        seen=f"{about['people_seen']:,}",
        iterations=f"{report['iterations']:,}",
        batch=report["batch_size"],
        seed=chosen.seed,
        recipe=f"Adam, learning rate {recipe.learning_rate:g} after {recipe.warmup} iterations, then linearly to 0; "
        f"kernels {', '.join(map(str, settings.kernels))}; hard keypoints: {hard}",
        augmentation=f"scale {augmentation.scale[0]:g} to {augmentation.scale[1]:g}, rotation up to "
        f"{augmentation.rotation:g} degrees with probability {augmentation.rotation_probability:g}, half body with "
        f"probability {augmentation.half_body:g}, mirrored with probability {augmentation.flip:g}",
        metric=judge.title,
        score=score,
        low=low,
        high=high,
        judged=f"{evaluation['people']:,}",
        way=f"{flip}, decoding {evaluation['decoding']}",
        machine=report["machine"],
        licence=chosen.licence,
        description=judge.description,
    )
