"""python -m rsnlib demo | notebook | train | site | evaluate | submit | predict | export | bench | readme"""

import argparse
import json
import sys

from rsnlib.errors import UserError


def main():
    parser = argparse.ArgumentParser(prog="python -m rsnlib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    demo = commands.add_parser("demo", help="draw the demo people")
    demo.add_argument("folder", help="where to; must not exist")
    demo.add_argument("--train", type=int, default=2000, metavar="N", help="training people (default 2000)")
    demo.add_argument("--val", type=int, default=400, metavar="N", help="validation people (default 400)")
    demo.add_argument("--seed", type=int, default=0)

    notebook = commands.add_parser("notebook", help="execute a notebook of the pipeline and make its page")
    notebook.add_argument("name", help="prepare, train, evaluate, tables, figures or networks")
    notebook.add_argument("--dataset")
    notebook.add_argument("--model")
    notebook.add_argument("--seed", type=int)

    train = commands.add_parser("train", help="train one run; under torchrun, on several GPUs")
    train.add_argument("--dataset", required=True)
    train.add_argument("--model", required=True)
    train.add_argument("--seed", type=int, default=0)

    commands.add_parser("site", help="make results/index.html of the executed notebooks")

    predict = commands.add_parser("predict", help="draw the poses of people in pictures and videos")
    predict.add_argument("weights", help="a .safetensors file of ours")
    predict.add_argument("inputs", nargs="+", metavar="input", help="a picture, a video, or a folder of these")
    predict.add_argument("--boxes", metavar="JSON", help="a detector's results (default: OpenCV's people detector)")
    predict.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where to; must be new or empty")

    export = commands.add_parser("export", help="write trained weights as ONNX")
    export.add_argument("weights", help="a .safetensors file of ours")
    export.add_argument("onnx", help="the file to write")

    evaluate = commands.add_parser("evaluate", help="judge trained weights, or an ensemble of several")
    evaluate.add_argument("weights", nargs="+", help=".safetensors files of ours")
    evaluate.add_argument("--dataset", required=True, help="a data set of params.yaml")
    evaluate.add_argument("--split", help="val2017, test-dev2017, ...; by default the data set's validation split")
    evaluate.add_argument("--detections", help="a detector's boxes, a COCO results JSON")
    evaluate.add_argument("-o", "--output", metavar="RESULTS", help="a COCO results JSON to write")

    submit = commands.add_parser("submit", help="make what COCO's or MPII's leaderboard takes")
    submit.add_argument("results", help="what evaluate -o wrote")
    submit.add_argument("--dataset", help="a data set of params.yaml, for MPII's (default: COCO's)")
    submit.add_argument("--split", help="val2017, test-dev2017 or test-challenge2017; of MPII, test if not given")
    submit.add_argument("--algorithm", help="the name under which COCO's server lists it")
    submit.add_argument("-o", "--output", default=".", metavar="FOLDER", help="where to (default: here)")

    bench = commands.add_parser("bench", help="time everything, also beside the released code")
    bench.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU where there is one")
    bench.add_argument("--released", metavar="PATH", help="a checkout of github.com/caiyuanhao1998/RSN")
    bench.add_argument("--model", default="rsn18", help="the first of the two networks (default rsn18)")
    bench.add_argument("-o", "--output", metavar="FOLDER", help="where to (default: results/bench/<device>)")

    commands.add_parser("readme", help="write the tables of results/ into README.md, between its markers")

    arguments = parser.parse_args()
    try:
        if arguments.command == "demo":
            from rsnlib.demo.annotate import draw_people

            draw_people(arguments.folder, arguments.train, arguments.val, arguments.seed)
        elif arguments.command == "train":
            from rsnlib.stages import train as train_stage
            from rsnlib.training import parallel

            parallel.start()
            train_stage.train(arguments.dataset, arguments.model, arguments.seed)
        elif arguments.command == "site":
            from rsnlib.report.site import write_site

            print(write_site())
        elif arguments.command == "predict":
            from rsnlib.apps.overlays import predict_files
            from rsnlib.models.checkpoints import load_model

            model = load_model(arguments.weights)
            problems = predict_files(model, arguments.inputs, arguments.output, arguments.boxes)
            if problems:
                raise UserError("\nerror: ".join(problems))
        elif arguments.command == "export":
            from rsnlib.apps.onnx import export_onnx
            from rsnlib.models.checkpoints import load_model

            model = load_model(arguments.weights)
            difference = export_onnx(model, arguments.onnx)
            size = "x".join(map(str, model.input_size))
            print(f"{arguments.onnx}: {size} images, within {difference:.0e} of the network's highest peak")
        elif arguments.command == "evaluate":
            from rsnlib.files import check_writable, write_results
            from rsnlib.stages.evaluate import evaluate_weights

            if arguments.output:
                check_writable(arguments.output)
            chosen = arguments.dataset, arguments.split, arguments.detections
            results, figures = evaluate_weights(arguments.weights, *chosen)
            if arguments.output:
                write_results(arguments.output, results)
            found = f"{len(results)} people, of a split without annotations to judge them by"
            print(json.dumps(figures, indent=2) if figures else found)
        elif arguments.command == "submit":
            from rsnlib.apps.submission import submit

            chosen = arguments.dataset, arguments.split, arguments.algorithm
            print(submit(arguments.results, arguments.output, *chosen))
        elif arguments.command == "bench":
            from bench.bench import bench
            from rsnlib.device import default_device

            device = arguments.device or default_device().type
            print(bench(device, arguments.released, arguments.model, arguments.output).read_text())
        elif arguments.command == "readme":
            from rsnlib.apps.readme import write_readme

            write_readme()
        else:
            from rsnlib.stages.notebook import run_notebook

            names = ("dataset", "model", "seed")
            given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
            run_notebook(arguments.name, given)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
