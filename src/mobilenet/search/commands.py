"""The verbs `index`, `search` and `teach`, and how a verification is printed; `cli.py` registers them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

import mobilenet
from mobilenet.errors import ArgumentError, ModelFileError
from mobilenet.report.progress import PictureBar

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

SHOWN_SKIPS = 10

ModelPath = Annotated[str, typer.Argument(metavar="MODEL", help="A model file, or an official .tflite file.")]
Threads = Annotated[int | None, typer.Option(help="Default: the processors that may be used.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def index(
    model: ModelPath,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder of pictures, at any depth.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The index: a folder of its own.")],
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Write a damaged index, or one of another model, anew.")
    ] = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Make pictures findable by likeness, or bring an index up to date.

    Only new and changed pictures are looked at; a run that was interrupted is gone on with.
    """
    from dataclasses import asdict

    from mobilenet.search.build import update_index

    loaded = mobilenet.load(model, threads=threads)
    with _progress("indexing") as advance:
        done = update_index(loaded, folder, output, rebuild=rebuild, on_progress=advance)
    if as_json:
        _print_json(asdict(done))
    else:
        counts = ((done.added, "new"), (done.changed, "changed"), (done.removed, "removed"))
        news = ", ".join(f"{count:,} {what}" for count, what in counts if count) or "nothing new"
        how = "by a graph" if done.approximate else "one by one"
        out.print(f"{escape(output)}: {done.pictures:,} pictures ({news}; {done.embedded:,} embedded)")
        out.print(f"searches compare them {how}")
    if done.resumed:
        err.print("note: the last run had been interrupted; this one went on where it was", highlight=False)
    if done.note:
        err.print(f"note: {escape(done.note)}", highlight=False)
    _name_skipped(done.bad)


def search(
    index: Annotated[str, typer.Argument(metavar="INDEX", help="What `mobilenet index` wrote.")],
    picture: Annotated[str, typer.Argument(metavar="PICTURE", help="What is looked for.")],
    top: Annotated[int, typer.Option(min=1, help="How many pictures to name.")] = 10,
    html: Annotated[str | None, typer.Option(help="Write a self-contained page of the pictures here.")] = None,
    save: Annotated[str | None, typer.Option(help="Draw the pictures beside each other here (.png).")] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Find the pictures of an index that are most like a picture."""
    opened = mobilenet.open_index(index, threads=threads)
    found = opened.search(picture, top)
    if as_json:
        _print_json({"picture": picture, "index": index, "matches": [match.to_dict() for match in found]})
    else:
        for match in found:
            sys.stdout.write(f"{match.similarity:.4f}  {match.path}\n")
    if html is not None:
        from mobilenet.search.page import write_page

        write_page(html, picture, found, index)
        err.print(f"page: {escape(html)}", highlight=False)
    if save is not None:
        from mobilenet.search.page import write_sheet

        write_sheet(save, picture, found)
        err.print(f"picture: {escape(save)}", highlight=False)
    if not opened.done:
        err.print("note: the index is not finished: run `mobilenet index` again", highlight=False)


def teach(
    model: ModelPath,
    name: Annotated[str, typer.Argument(metavar="CLASS", help="The name of the class.")],
    pictures: Annotated[
        list[str], typer.Argument(metavar="PICTURE...", help="A handful of pictures, folders, or globs.")
    ],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The model file to write. Default: MODEL itself.")
    ] = None,
    only_taught: Annotated[
        bool, typer.Option("--only-taught", help="Leave out the classes that the model was trained on.")
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(help="The cosine from which a picture is of a taught class.")
    ] = None,
    threads: Threads = None,
) -> None:
    """Teach a model a class by a handful of pictures, without training.

    A picture that is like no taught class is of the model's own classes, or, without them, "none of these".
    """
    from mobilenet.pictures.sources import expand_sources

    loaded = mobilenet.load(model, threads=threads)
    target = output or _itself(model)
    paths = list(dict.fromkeys(expand_sources(pictures, stdin=sys.stdin)))
    taught = loaded.teach(name, paths, keep=not only_taught, threshold=threshold)
    taught.save(target)
    what = taught.provenance["taught"]
    known = next(one for one in what["classes"] if one["name"] == name)
    given = "as given" if what["given_threshold"] is not None else "from the pictures"
    out.print(
        f"{escape(target)}: {escape(name)} by {known['pictures']} pictures; {len(taught.labels):,} classes; "
        f"threshold {what['threshold']:.3f} ({given})",
        highlight=False,
    )
    if what["given_threshold"] is None and not any(one["similarities"] for one in what["classes"]):
        err.print(
            "note: one picture does not say how much the pictures of a class differ: the threshold is a guess. "
            "Give two or more, or --threshold",
            highlight=False,
        )


def _itself(model: str) -> str:
    """The file, if it is one that can be written in place."""
    from mobilenet.files.model_file import read_model_file

    try:
        read_model_file(model)
    except ModelFileError as error:
        raise ArgumentError(f"{model}: is another project's file: name a new one with -o") from error
    return model


def is_verification(task: str | None, own: Mapping[str, str | None], others: Mapping[str, str | None]) -> bool:
    """Whether `--task` asks for `verify`.

    Raises `ArgumentError` for what is neither that nor left out, and for an option that would do nothing: one of
    verification's `own` without it, or one of the `others` with it.
    """
    if task not in (None, "verify"):
        raise ArgumentError(f"--task is verify, or left out for the model's own task, not {task!r}")
    for name, value in (own if task is None else others).items():
        if value is not None:
            only = "only with --task verify" if task is None else "not with --task verify"
            raise ArgumentError(f"{name} goes {only}")
    return task == "verify"


def verify(
    model: str,
    data: str,
    *,
    pairs: str | None,
    draw: int,
    seed: int,
    calibrate: str | None,
    far: float,
    output: str | None,
    plot: str | None,
    on_bad_picture: str,
    threads: int | None,
    precision: str,
    as_json: bool,
) -> None:
    """`mobilenet evaluate --task verify`: sets a threshold if asked to, and measures."""
    from mobilenet.tasks.verify_run import calibrate_verification, evaluate_verification

    loaded = mobilenet.load(model, threads=threads, precision=precision)
    target = (output or _itself(model)) if calibrate else output
    if calibrate is not None:
        with _progress("calibrating") as advance:
            loaded = calibrate_verification(
                loaded,
                calibrate,
                test=data,
                pairs=pairs,
                far=far,
                seed=seed,
                on_bad_picture=on_bad_picture,
                on_progress=advance,
            )
    with _progress("evaluating") as advance:
        metrics = evaluate_verification(
            loaded,
            data,
            pairs=pairs,
            draw=draw,
            seed=seed,
            on_bad_picture=on_bad_picture,
            plot=plot,
            on_progress=advance,
        )
    if target is not None:
        loaded.save(target)
    _print_json(metrics) if as_json else _print_verification(metrics)
    for what, path in (("ROC curve", plot), ("model with its threshold", target)):
        if path and not as_json:
            out.print(f"{what}: {escape(path)}")
    if metrics["single"]:
        names = ", ".join(metrics["single"][:SHOWN_SKIPS])
        more = " ..." if len(metrics["single"]) > SHOWN_SKIPS else ""
        err.print(
            f"note: {len(metrics['single'])} identities have one picture and were left out: {escape(names)}{more}",
            highlight=False,
        )
    _name_skipped(metrics["skipped"])


def _print_verification(metrics: dict[str, Any]) -> None:
    pairs, same = metrics["pairs"], metrics["same_pairs"]
    spread = f"± {metrics['accuracy_std']:.4f}, {metrics['folds']} folds"
    out.print(f"accuracy {metrics['accuracy']:.4f} ({spread})   {pairs:,} pairs, {same:,} of the same identity")
    out.print(f"area under ROC {metrics['auc']:.4f}   equal error rate {metrics['eer']:.4f}")
    shown = ("too few pairs" if tar is None else f"{tar:.4f}" for tar in metrics["tar_at_far"].values())
    rates = (f"{far}: {tar}" for far, tar in zip(metrics["tar_at_far"], shown, strict=True))
    out.print(f"TAR at FAR {', '.join(rates)}", highlight=False)
    if metrics.get("rank1") is not None:
        out.print(f"rank-1 identification from one picture each {metrics['rank1']:.4f}")
    if at := metrics.get("at_threshold"):
        out.print(
            f"at the calibrated threshold {at['threshold']:.4f}: balanced accuracy {at['balanced_accuracy']:.4f}, "
            f"TAR {at['tar']:.4f}, FAR {at['far']:.4f}"
        )


def _name_skipped(reasons: list[str]) -> None:
    if reasons:
        err.print(f"note: {len(reasons)} pictures cannot be used and were left out:", highlight=False)
    for reason in reasons[:SHOWN_SKIPS]:
        err.print(f"  {escape(reason)}", highlight=False)
    if len(reasons) > SHOWN_SKIPS:
        err.print(f"  and {len(reasons) - SHOWN_SKIPS} more", highlight=False)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")


def _progress(what: str) -> PictureBar:
    return PictureBar(what, err)
