"""The command line: python -m rsnlib <command>."""

import argparse
import json
import signal
import sys
import threading
from pathlib import Path

from rsnlib.errors import Stopped, UserError, termination

sys.modules.setdefault("rfc3987_syntax", None)  # nbformat's optional grammar of addresses, a second to import

WEIGHTS = "a file of weights, of ours, the released code or MMPose, or a name that the command `weights` lists"


def main():
    """Run one command; a UserError, or Ctrl-C, becomes one line and exit status 1."""
    arguments = vars(command_line().parse_args())
    command = arguments.pop("command")
    try:
        command(**arguments)
    except Stopped as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pipeline = command in (demo, notebook, site)
        sys.exit("\nstopped; `make` or `dvc repro` goes on from here" if pipeline else "\nstopped")
    except UserError as error:
        sys.exit(f"error: {error}")


def command_line():
    """Return the parser of every command; `command` is the function below that runs it on the other arguments."""
    parser = argparse.ArgumentParser(prog="python -m rsnlib")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(function):
        text = function.__doc__
        command = commands.add_parser(function.__name__, help=text, description=text)
        command.set_defaults(command=function)
        return command.add_argument

    argument = add(demo)
    argument("folder", help="the folder to make; must not exist")
    argument("--train", type=int, default=2000, metavar="N", help="training people (default 2000)")
    argument("--val", type=int, default=400, metavar="N", help="validation people (default 400)")
    argument("--seed", type=int, default=0)

    argument = add(digest)
    argument("--dataset", required=True)

    argument = add(notebook)
    argument("name", help="prepare, train, evaluate, tables, figures or networks")
    argument("--dataset")
    argument("--model")
    argument("--seed", type=int)

    argument = add(prepare)
    argument("--dataset", required=True)

    argument = add(train)
    argument("--dataset", help="with --model: train this run alone")
    argument("--model")
    argument("--seed", type=int, default=0)
    argument("--minutes", type=positive, metavar="N", help="stop after so long; the same command goes on")

    add(starts)
    argument = add(release)
    argument("--name", required=True, help="one of `release` in params.yaml")
    add(site)

    argument = add(evaluate)
    argument("weights", nargs="+", help=WEIGHTS)
    argument("--dataset", required=True, help="a data set of params.yaml")
    argument("--split", help="val2017, test-dev2017, ... (default: the data set's validation split)")
    argument("--detections", help="a detector's boxes, a COCO results JSON")
    argument("--min-score", type=float, default=0, metavar="S", help="leave out boxes of a lower score")
    argument("-o", "--output", metavar="RESULTS", help="the COCO results JSON to write")

    argument = add(submit)
    argument("results", help="the file written by evaluate -o")
    argument("--dataset", help="a data set of params.yaml, for MPII's (default: COCO's)")
    argument("--split", help="val2017, test-dev2017 or test-challenge2017; for MPII test, the default")
    argument("--algorithm", help="the algorithm's name in the list of COCO's server")
    argument("-o", "--output", default=".", metavar="FOLDER", help="the folder to write into (default: here)")

    argument = add(predict)
    argument("weights", help=WEIGHTS)
    argument("inputs", nargs="+", metavar="input", help="a picture, video, folder of these, camera's number, stream")
    argument("--boxes", metavar="JSON", help="a detector's results (default: OpenCV's people detector)")
    argument("--skeleton", metavar="NAME", help="whose keypoints the weights find, where they do not say")
    argument("--min-score", type=float, default=0, metavar="S", help="leave out boxes of a lower score")
    argument("--no-flip", dest="flip_test", action="store_false", help="without the mirrored crop: twice as fast")
    argument("--decoding", choices=["quarter", "dark"], help="of heatmaps (default: the network's own)")
    argument("--every", type=positive, default=1, metavar="N", help="take every Nth frame of videos")
    argument("--json-only", dest="overlays", action="store_false", help="no overlays: poses.json alone")
    argument("-o", "--output", required=True, metavar="FOLDER", help="the folder to make; must be new or empty")

    argument = add(export)
    argument("weights", help=WEIGHTS)
    argument("onnx", help="the file to write")

    argument = add(convert)
    argument("weights", help=WEIGHTS)
    argument("output", help="the file to write, .safetensors for ours")
    argument("--format", choices=["rsn", "mmpose"], help="for other code: the released RSN or MSPN code's, or MMPose's")

    argument = add(bench)
    argument("--device", choices=["cpu", "cuda"], help="default: the GPU if there is one")
    argument("--released", metavar="PATH", help="a checkout of github.com/caiyuanhao1998/RSN")
    argument("--model", default="rsn18", help="the first of the two networks (default rsn18)")
    argument("-o", "--output", metavar="FOLDER", help="default: results/bench/<device>")

    add(weights)
    add(readme)
    return parser


def positive(text):
    """Return the number, 1 or more, that an argument is."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def demo(folder, train, val, seed):
    """Draw the demo's people."""
    from rsnlib.demo.annotate import draw_people

    draw_people(folder, train, val, seed)


def digest(dataset):
    """Write the digest of a data set's files, by which the pipeline knows them."""
    from rsnlib.stages.digest import write_digest
    from rsnlib.stages.provenance import place_in_pipeline

    if place := place_in_pipeline(f"digest@{dataset}"):
        print(place, flush=True)
    write_digest(dataset)


def notebook(name, **given):
    """Execute a notebook of the pipeline and make its page."""
    from rsnlib.stages.notebook import run_notebook

    run_notebook(name, {key: value for key, value in given.items() if value is not None})


def prepare(dataset):
    """Make the crop stores of a data set, as `dvc repro` does, without its notebook."""
    from rsnlib.stages.prepare import prepare

    for split, people in prepare(dataset).items():
        print(f"{split}: {len(people)} people")


def train(dataset, model, seed, minutes):
    """Train one run, under torchrun on several GPUs; without --dataset and --model every run, side by side on a CPU."""
    if minutes:
        timer = threading.Timer(60 * minutes, signal.raise_signal, [signal.SIGTERM])
        timer.daemon = True
        timer.start()
    if not dataset and not model:
        from rsnlib.stages.side_by_side import train_all

        return train_all()
    if not dataset or not model:
        raise UserError("train takes --dataset and --model, or neither")
    from torch.distributed.elastic.multiprocessing.errors import record

    from rsnlib.stages.train import train
    from rsnlib.training import parallel

    parallel.start()
    record(train)(dataset, model, seed)  # torchrun ends with the error of the first process that failed


def starts():
    """Record what models with `init` start from, for `dvc repro`."""
    from rsnlib.stages.provenance import place_in_pipeline
    from rsnlib.stages.starts import write_starts

    print(place_in_pipeline("starts"), flush=True)
    write_starts()


def release(name):
    """Write a run's weights and their card into weights/."""
    from rsnlib.stages.release import release

    release(name)


def site():
    """Make results/index.html from the executed notebooks."""
    from rsnlib.stages.provenance import place_in_pipeline
    from rsnlib.stages.site import pictures, write_site

    print(place_in_pipeline("site"), flush=True)
    with termination() as stopped:  # a library may swallow a KeyboardInterrupt
        page = write_site()
    if stopped.is_set():
        raise KeyboardInterrupt
    print(f"Everything in one page: {page.as_uri()}", "Pictures to begin with:", *pictures(), sep="\n")


def evaluate(weights, dataset, split, detections, min_score, output):
    """Evaluate trained weights, or an ensemble of several."""
    from rsnlib.apps.weights import find_weights
    from rsnlib.files import check_writable, write_results
    from rsnlib.stages.evaluate import evaluate_weights

    if output:
        check_writable(output)
    paths = [find_weights(each) for each in weights]
    results, metrics = evaluate_weights(paths, dataset, split, detections, min_score)
    if output:
        write_results(output, results)
    without = f"{len(results)} people, of a split without annotations to judge them by"
    print(json.dumps(metrics, indent=2) if metrics else without)


def submit(results, dataset, split, algorithm, output):
    """Make the file that COCO's or MPII's leaderboard takes."""
    from rsnlib.apps.submission import submit

    print(submit(results, output, dataset, split, algorithm))


def predict(weights, inputs, output, skeleton, **chosen):
    """Draw the poses of people in pictures and videos."""
    from rsnlib.apps.overlays import predict_files

    model = _load(weights)
    if skeleton:
        model.about["skeleton"] = skeleton
    if problems := predict_files(model, inputs, output, **chosen):
        raise UserError("\nerror: ".join(problems))


def export(weights, onnx):
    """Write trained weights as ONNX."""
    from rsnlib.apps.onnx import export_onnx

    model = _load(weights)
    difference = export_onnx(model, onnx)
    size = "x".join(map(str, model.input_size))
    print(f"{onnx}: {size} images, within {difference:.0e} of the network's highest peak")


def convert(weights, output, format):
    """Write weights in the format of ours or of other code."""
    from rsnlib.models.checkpoints import save_checkpoint, save_model

    if output.endswith(".safetensors") == bool(format):
        raise UserError(f"{output}: ours are named .safetensors, others' otherwise and with --format rsn or mmpose")
    model = _load(weights)
    if format:
        save_checkpoint(model, output, format)
    else:
        save_model(model, output, model.about)


def _load(weights):
    """Return the network of a file or a name; of another's file, print what it was taken for."""
    from rsnlib.apps.weights import load_model

    model = load_model(weights)
    if "source" in model.about:
        words = f"{model.about['model']}, {model.keypoints} keypoints, weights of {model.about['source']}"
        assumed = f"; {model.about['assumed']}" if "assumed" in model.about else ""
        print(f"{weights}: {words}{assumed}", file=sys.stderr)
    return model


def bench(**chosen):
    """Measure speed, also beside the released code: by bench/, which stands beside the package in a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / "bench").is_dir():
        raise UserError(f"{root}: has no folder bench/; speed is measured in a checkout of the project")
    sys.path.insert(0, str(root))
    from bench.bench import bench

    print(bench(**chosen).read_text())


def weights():
    """List the weights known by name: published ones and this project's own."""
    from rsnlib.apps.weights import list_weights

    print(list_weights().astype(object).fillna("").to_markdown(index=False, tablefmt="plain", floatfmt=".1f"))


def readme():
    """Write the tables of results/ into README.md and docs/, between their markers."""
    from rsnlib.apps.readme import write_readme

    write_readme()


if __name__ == "__main__":
    main()
