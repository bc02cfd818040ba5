"""``gcplib bench``: time layers and whole networks, and check and time the library on a GPU."""

from __future__ import annotations

import argparse

SUMMARY = "time the layers beside other packages, or whole networks in training; check a GPU"
DETAIL = (
    "Time the ways from features to a normalized covariance (layers, the default), or whole networks in training,\n"
    "or test and time everything on an NVIDIA card (gpu).\n"
    "Results are in runs/bench; --keep copies them to data/evidence and renews the page in docs/."
)
EXAMPLE = "python -m gcplib bench layers --sizes 16x256x49 --methods torchspd"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options, without importing anything heavy."""
    parser.set_defaults(what="layers", device=None, rounds=15, sizes=None, methods=None, sweep=False, keep=False)
    kinds = parser.add_subparsers(title="what to time", metavar="WHAT")
    layers = kinds.add_parser("layers", help="forward and backward of single layers, beside other packages")
    layers.set_defaults(what="layers")
    layers.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU if there is one")
    layers.add_argument("--rounds", type=int, default=15, help="timed passes of each method (default: %(default)s)")
    layers.add_argument("--sizes", type=_size, nargs="+", metavar="BxDxM", help="only these, for example 16x256x49")
    layers.add_argument("--methods", nargs="+", metavar="NAME", help="only methods with one of these in their names")
    layers.add_argument("--sweep", action="store_true", help="cost against channels, positions and batch, as an image")
    layers.add_argument("--keep", action="store_true", help="measure nothing; keep the last result of the device")
    training = kinds.add_parser("training", help="images per second of whole networks")
    training.set_defaults(what="training")
    training.add_argument("--pixels", type=int, nargs="+", default=[128], help="sides of the images (default: 128)")
    training.add_argument("--networks", nargs="+", metavar="NAME", help="only these, such as gap or 'channel gates'")
    training.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    training.add_argument("--steps", type=int, default=6, help="steps of 32 images per pass (default: %(default)s)")
    training.add_argument("--reduction", type=int, default=64, help="default: %(default)s")
    training.add_argument("--backbone", default="tf_efficientnet_lite0", help="default: %(default)s")
    training.add_argument("--keep", action="store_true", help="measure all networks, and keep the result")
    derivatives = kinds.add_parser("derivatives", help="second derivatives, vmap, the root by products, ONNX files")
    derivatives.set_defaults(what="derivatives")
    derivatives.add_argument("--rounds", type=int, default=15, help="timed passes of each case (default: %(default)s)")
    derivatives.add_argument("--sizes", type=_size, nargs="+", metavar="BxDxM", help="only these, such as 16x256x49")
    derivatives.add_argument("--keep", action="store_true", help="measure nothing; keep the last result")
    transforms = kinds.add_parser("transforms", help="which transforms, exports and edge cases each pool passes")
    transforms.set_defaults(what="transforms")
    transforms.add_argument("--keep", action="store_true", help="keep the result, and renew its page")
    gpu = kinds.add_parser("gpu", help="test and time everything on an NVIDIA card, in at most eight minutes")
    gpu.set_defaults(what="gpu")
    gpu.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="default: %(default)s")
    gpu.add_argument("--tiny", action="store_true", help="at sizes that say nothing: tries the kit itself")
    gpu.add_argument("--keep", action="store_true", help="measure nothing; keep the last result")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and write what the arguments say, and return the exit code."""
    if arguments.rounds < 1:
        raise ValueError(f"--rounds must be at least 1, got {arguments.rounds}")
    if arguments.what == "transforms":
        return _transforms(arguments.keep)
    if arguments.what == "gpu":
        return _gpu(arguments)
    measured = {"layers": _layers, "derivatives": _derivatives, "training": _training}
    written = measured[arguments.what](arguments)
    if arguments.keep:
        from gcplib.lab.doc_pages import write_page

        pages = {"layers": "speed.md", "derivatives": "derivatives.md", "training": "training_speed.md"}
        written.append(write_page(pages[arguments.what]))
    print("\nWritten:", *written, sep="\n  ")
    return 0


def _size(text: str) -> tuple[int, int, int]:
    try:
        batch, channels, positions = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not BATCHxCHANNELSxPOSITIONS, for example 16x256x49") from None
    if min(batch, channels) < 1 or positions < 2:
        raise argparse.ArgumentTypeError(f"{text!r} needs at least one image, one channel and two positions")
    return batch, channels, positions


def _layers(arguments: argparse.Namespace) -> list:
    import pandas as pd
    import torch

    from gcplib.lab.bench.layers import Report, cells, keep, report_path, shape
    from gcplib.lab.bench.measure import SIZES, measure
    from gcplib.lab.bench.methods import METHODS, choose_methods, load_methods
    from gcplib.lab.bench.sweeps import SWEEPS, SWEPT, plot_sweeps
    from gcplib.lab.progress import track

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.keep:
        if arguments.sizes or arguments.methods or arguments.sweep:
            raise ValueError("--keep measures nothing, so --sizes, --methods and --sweep cannot go with it")
        return [keep(device)]
    if arguments.sweep and (arguments.sizes or arguments.methods):
        raise ValueError("--sweep has sizes and methods of its own")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch sees no CUDA device; use --device cpu")
    sizes = arguments.sizes or SIZES
    if arguments.sweep:
        sizes = dict.fromkeys(size for sweep in SWEEPS.values() for size in sweep)
    swept = [method for method in METHODS if method.name in SWEPT]
    functions, skipped = load_methods(swept if arguments.sweep else choose_methods(arguments.methods))
    report = Report(device, torch.get_num_threads(), arguments.rounds, [], skipped)
    print(f"{report.processor}; torch {report.machine['versions']['torch']}, commit {report.machine['commit']}")
    for name, reason in skipped.items():
        print(f"skipped: {name} ({reason})")
    for size in track(list(sizes), "benchmark", unit="size"):
        report.rows.extend(measure(size, functions, arguments.rounds, device))
        rows = report.rows[-len(functions) :]
        print(f"\n{shape(rows[0])}; milliseconds, float32", pd.DataFrame(cells(rows)).to_string(index=False), sep="\n")
    written = [report.write(report_path(device + "_sweep" * arguments.sweep))]
    if arguments.sweep:
        written.append(plot_sweeps(report.rows, written[0].with_suffix(".png"), report.processor))
    return written


def _derivatives(arguments: argparse.Namespace) -> list:
    import pandas as pd

    from gcplib.lab.bench.derivatives import measure_derivatives
    from gcplib.lab.bench.derivatives_page import NAME, derivatives_cells, keep_derivatives, new_report
    from gcplib.lab.bench.layers import report_path
    from gcplib.lab.bench.measure import SIZES
    from gcplib.lab.progress import track

    if arguments.keep:
        if arguments.sizes:
            raise ValueError("--keep measures nothing, so --sizes cannot go with it")
        return [keep_derivatives()]
    report = new_report(arguments.rounds)
    print(f"{report.processor}; torch {report.machine['versions']['torch']}, commit {report.machine['commit']}")
    for size in track(list(arguments.sizes or SIZES), "benchmark", unit="size"):
        report.rows.extend(rows := measure_derivatives(size, arguments.rounds))
        for part in dict.fromkeys(row["part"] for row in rows):
            cells = derivatives_cells([row for row in rows if row["part"] == part])
            print(f"\n{part}", pd.DataFrame(cells).to_string(index=False), sep="\n")
    return [report.write(report_path(NAME))]


def _training(arguments: argparse.Namespace) -> list:
    import pandas as pd
    import torch

    from gcplib.lab.bench.networks import CASES, measure_training
    from gcplib.lab.machine import describe_machine, machine_line
    from gcplib.lab.study.tables import keep_tables, save_table
    from gcplib.lab.training.engine import Engine

    names, engine, threads = arguments.networks or list(CASES), Engine(), torch.get_num_threads()
    if arguments.keep and (missing := set(CASES) - set(names)):
        raise ValueError(f"the page shows all networks, and these are not among yours: {', '.join(sorted(missing))}")
    looks = {"backbone": arguments.backbone, "reduction": arguments.reduction}
    print(f"{machine_line(describe_machine())}; {engine.kind}, {threads} threads; {arguments.backbone}")
    tables = [
        measure_training(pixels, names, arguments.rounds, arguments.steps, engine, **looks)
        for pixels in arguments.pixels
    ]
    table = pd.concat(tables, ignore_index=True)
    print(table.round(3).to_string(index=False))
    written = save_table(table.assign(**looks, threads=threads), f"training_speed_{engine.kind}", profile="bench")
    return [written, *(keep_tables("bench") if arguments.keep else [])]


def _transforms(keep: bool) -> int:
    from gcplib.lab.bench.transforms import keep_transforms, measure_transforms
    from gcplib.lab.doc_pages import write_page

    found = measure_transforms()
    for name, row in found.items():
        failed = [f"{check} ({reason})" for check, reason in row.items() if reason != "yes"]
        print(f"{name}: {'passes all' if not failed else 'all but ' + ', '.join(failed)}")
    if keep:
        print("\nWritten:", keep_transforms(found), write_page("transforms.md"), sep="\n  ")
    return 0


def _gpu(arguments: argparse.Namespace) -> int:
    import dataclasses

    import torch

    from gcplib.lab.bench.gpu import FULL, TINY, run_kit
    from gcplib.lab.bench.gpu_results import failures, gpu_path, keep_gpu

    if arguments.keep:
        from gcplib.lab.doc_pages import write_page

        if arguments.tiny or arguments.device == "cpu":
            raise ValueError("--keep keeps what was measured on a card; --tiny and --device cpu cannot go with it")
        print("\nWritten:", keep_gpu(), write_page("gpu.md"), sep="\n  ")
        return 0
    if arguments.device == "cpu" and not arguments.tiny:
        raise ValueError("the kit measures a card; on a CPU it takes --tiny, which tries the kit itself")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch sees no CUDA device; --device cpu --tiny tries the kit itself")
    settings = dataclasses.replace(TINY if arguments.tiny else FULL, device=arguments.device)
    path = gpu_path(arguments.tiny)
    found = failures(run_kit(settings, path))
    print(f"\n{len(found)} failed:" if found else "\nAll passed.", *found, sep="\n  ")
    print("\nWritten:", path, sep="\n  ")
    return int(bool(found))
