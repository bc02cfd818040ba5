"""The command ``probe``."""

from __future__ import annotations

import argparse

SUMMARY = "tell whether second-order pooling pays on your images"
DETAIL = """Read the features of a frozen network by averages, class token, attention and covariances, each tuned on
validation images, and say what to take: a table, a figure and a sentence, with intervals over seeds and test images.
FOLDER is any that `gcplib data check` reads. What was computed before is reused."""
EXAMPLE = "gcplib probe CUB_200_2011 --backbone tf_efficientnet_lite2 --seeds 5"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options, without importing anything heavy."""
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="of the images")
    add("--dataset", metavar="NAME", help="such as cub or folder (default: what it looks like)")
    add("--labels", choices=("fine", "coarse"), default="fine", help="default: %(default)s")
    add("--backbone", default="tf_efficientnet_lite0", metavar="NAME", help="any of timm's (default: %(default)s)")
    add("--weights", metavar="FILE", help="its weights (default: those of its package, or of timm over the network)")
    add("--strides", type=int, nargs="+", metavar="N", help="stages, in pixels per position (default: 16 and the last)")
    add("--widths", type=int, nargs="+", default=(64, 128), metavar="N", help="channels before covariances (64 128)")
    add("--pixels", type=int, default=224, metavar="N", help="side of the images (default: %(default)s)")
    add("--resize", choices=("shorter", "both"), default="shorter", help="sides to scale (default: %(default)s)")
    add("--skip-corrupt", action="store_true", help="leave out images that cannot be decoded, and count them")
    add("--seeds", type=int, default=3, metavar="N", help="trainings of each probe (default: %(default)s)")
    add("--dtype", choices=("float16", "float32"), default="float16", help="of the cached features")
    add("--accelerator", choices=("auto", "cpu", "cuda"), default="auto", help="for the network (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Probe, print and write the report, and return the exit code."""
    from gcplib.lab.data import ImagesSpec
    from gcplib.lab.data.readers import guess_dataset
    from gcplib.lab.files import runs_dir
    from gcplib.lab.machine import describe_machine, machine_line
    from gcplib.lab.probe_report import advice, write_report
    from gcplib.lab.probing import ProbeSpec, probe
    from gcplib.lab.training import Engine

    name = arguments.dataset or guess_dataset(arguments.folder)
    shape = {"pixels": arguments.pixels, "resize": arguments.resize}
    data = ImagesSpec(dataset=name, root=arguments.folder, skip_corrupt=arguments.skip_corrupt, **shape)
    given = {key: getattr(arguments, key) for key in ("backbone", "strides", "labels", "widths", "seeds", "dtype")}
    spec = ProbeSpec(data=data, pretrained=arguments.weights or True, **given)
    results, dataset = probe(spec, Engine(arguments.accelerator))
    counts = {split: len(dataset.indices(split)) for split in ("train", "validation", "test")}
    machine = describe_machine()
    about = {
        "images": f"{name}, {len(dataset.class_names(spec.labels))} {spec.labels} classes, "
        + ", ".join(f"{count:,} {split}" for split, count in counts.items())
        + f", {spec.data.pixels} pixels",
        "network": f"{spec.backbone}, frozen",
        "seeds": f"{spec.seeds}; gains are paired, with intervals for all comparisons with the best average together",
        "machine": f"{machine_line(machine)}, commit {machine['commit']}",
    }
    folder = runs_dir() / "probe" / spec.name
    write_report(spec, results, about, folder)
    print((folder / "report.md").read_text(encoding="utf-8").split("\n", 2)[2])
    print(f"\n{advice(results)}\n\nWritten: {folder}/report.html, report.md, figure.png, table.csv")
    return 0
