"""The command `weightzoo`: verbs that mirror the way from `params.yaml` to a report.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 it failed or a check found something, 2 the
command line is wrong, 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from weightzoo import console
from weightzoo.printing import cell, print_facts, print_frame, print_json, print_result, print_rows
from weightzoo.workspace import Workspace

if TYPE_CHECKING:
    from weightzoo.spec import Execution, Params

app = typer.Typer(
    help="Make, track, version and study populations of neural networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

remote = typer.Typer(
    help="A place on S3 for what DVC pushes and for the artifacts of runs.",
    no_args_is_help=True,
    epilog="**Example**: `weightzoo remote setup s3://zoos/lab`",
    rich_markup_mode="markdown",
)
app.add_typer(remote, name="remote")

ZooArgument = Annotated[str, typer.Argument(metavar="ZOO", help="A zoo of params.yaml, or its ZOO-rehearsal.")]
RehearsedArgument = Annotated[str, typer.Argument(metavar="ZOO", help="A zoo of params.yaml.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run id or a member id.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
GivenOption = Annotated[
    Path | None, typer.Option("--from", metavar="DIR", help="A folder with its files. [default: $WEIGHTZOO_DATA]")
]
EngineOption = Annotated[str | None, typer.Option(help="auto, lanes, torch or reference.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: one a core]")]
ExecutionOption = Annotated[str | None, typer.Option(help="local or ray. [default: as params.yaml says]")]
AddressOption = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="With ray: the cluster. [default: $RAY_ADDRESS, or a new one here]"),
]
WORKSPACE = Workspace()


def main() -> None:
    """Entry point of the command."""
    sys.exit(console.guarded(app))


def _example(*lines: str) -> str:
    """The epilog of a verb: one example that can be copied."""
    return "**Example**: `" + " ".join(lines) + "`"


@app.command(epilog=_example("weightzoo plan digits-hyp"))
def plan(
    zoos: Annotated[list[str] | None, typer.Argument(metavar="[ZOO]...", help="Default: those under `build`.")] = None,
    all_zoos: Annotated[bool, typer.Option("--all", help="All zoos of params.yaml, in one table.")] = False,
    calibrate: Annotated[
        bool | None,
        typer.Option(help="Measure this machine's speed for the estimate of time. [default: not with --all]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print what a build would make, before anything runs: models, states, disk, time, hyperparameters."""
    from weightzoo.spec import load_params

    params = load_params(WORKSPACE.params)
    if all_zoos:
        if zoos:
            _refuse("give either ZOO or --all")
        _plan_all(params, calibrate=bool(calibrate), as_json=as_json)
        return
    from weightzoo.plan import make_plan  # with PyTorch, which takes seconds to import

    plans = [make_plan(name, params, calibrate=calibrate is not False) for name in zoos or params.build]
    if as_json:
        print_json([plan.to_json() for plan in plans])
    else:
        for made in plans:
            console.stdout.print(made.render())


@app.command(epilog=_example("weightzoo prepare digits-hyp"))
def prepare(
    zoo: ZooArgument,
    given: GivenOption = None,
) -> None:
    """Prepare the image data set of a zoo: data/ZOO. Its files are downloaded to .downloads/ unless they are there."""
    from weightzoo.stages.prepare import prepare

    prepare(zoo, WORKSPACE, given=given)


@app.command(epilog=_example("weightzoo train digits-seed --threads 1"))
def train(
    zoo: ZooArgument,
    engine: EngineOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    execution: ExecutionOption = None,
    address: AddressOption = None,
    force: Annotated[bool, typer.Option("--force", help="Delete the zoo's runs and train them anew.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --force: do not ask.")] = False,
) -> None:
    """Train the members of a zoo that have no finished run yet; an interrupted training goes on where it was."""
    from weightzoo.stages.train import deletion, train

    where = _execution(execution, address)
    if force:
        delete = deletion(zoo, WORKSPACE)
        console.say(f"--force deletes {delete}")
        if delete.runs and not yes and not typer.confirm("Delete them?", err=True):
            raise typer.Exit(console.EXIT_FAILED)
        delete.carry_out()
    train(zoo, WORKSPACE, engine=engine, device=device, threads=threads, execution=where)


@app.command(epilog=_example("weightzoo rehearse mnist-cnn-s-hyp-10-fix"))
def rehearse(
    zoo: RehearsedArgument,
    given: GivenOption = None,
    engine: EngineOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    execution: ExecutionOption = None,
    address: AddressOption = None,
) -> None:
    """Build a zoo in small, from its images to its report, as the zoo ZOO-rehearsal beside it."""
    from weightzoo.stages.rehearse import rehearse

    where = _execution(execution, address)
    rehearse(zoo, WORKSPACE, given=given, engine=engine, device=device, threads=threads, execution=where)


@app.command(epilog=_example("weightzoo finetune digits-tuned"))
def finetune(
    zoo: Annotated[str, typer.Argument(metavar="ZOO", help="A zoo below `finetune` in params.yaml.")],
    engine: EngineOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Train models of a packed zoo further, on the same or on other images, and pack the results into zoos/ZOO."""
    from weightzoo.stages.finetune import finetune

    finetune(zoo, WORKSPACE, engine=engine, device=device, threads=threads)


@app.command(epilog=_example("weightzoo sparsify digits-seed"))
def sparsify(
    zoo: Annotated[str, typer.Argument(metavar="ZOO", help="A zoo below `sparsify` in params.yaml, or a packed zoo.")],
    engine: Annotated[str | None, typer.Option(help="auto or torch.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: one a core]")] = None,
) -> None:
    """Train sparse twins of the models of a packed zoo, and pack them into zoos/ZOO or zoos/ZOO-sparse."""
    from weightzoo.stages.sparsify import sparsify

    sparsify(zoo, WORKSPACE, engine=engine, device=device, threads=threads)


@app.command(epilog=_example("weightzoo assemble --where", '"dropout == 0 and test_accuracy > 0.9"', "--to zoos/good"))
def assemble(
    zoo: Annotated[str | None, typer.Argument(metavar="[ZOO]", help="A zoo of params.yaml that was trained.")] = None,
    where: Annotated[str | None, typer.Option(metavar="QUERY", help="Instead: the runs that a query finds.")] = None,
    to: Annotated[Path | None, typer.Option(metavar="FOLDER", help="With --where: the folder to write.")] = None,
) -> None:
    """Pack trained models into a zoo: zoos/ZOO, or the runs of a query into any folder."""
    if zoo is not None and where is None and to is None:
        from weightzoo.stages.assemble import assemble

        assemble(zoo, WORKSPACE)
    elif zoo is None and where is not None and to is not None:
        from weightzoo.registry import Registry

        with console.progress("assemble", unit="models") as report:
            packed = Registry().query(where).assemble(to, on_progress=report)
        console.say(f"assemble  {to}: {len(packed.models):,} models")
    else:
        _refuse("give either ZOO, or --where and --to together")


@app.command("import", epilog=_example("weightzoo import downloads/tune_zoo_mnist_uniform", "--to mnist-published"))
def import_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A downloaded zoo.")],
    to: Annotated[str, typer.Option(metavar="ZOO", help="The zoo to make: its name.")],
    layout: Annotated[str | None, typer.Option(help="ray-tune or unterthiner. [default: recognised]")] = None,
    dataset: Annotated[str | None, typer.Option(help="Its image data set. [default: by the names in it]")] = None,
    runs: Annotated[bool, typer.Option(help="Record MLflow runs, or only pack zoos/ZOO.")] = True,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. [default: one a core]")] = None,
) -> None:
    """Take over a published zoo: its models become runs and a packed zoo like any other."""
    from weightzoo.stages.importing import import_zoo

    processes = workers or len(os.sched_getaffinity(0))
    remarks = import_zoo(folder, to, WORKSPACE, layout=layout, dataset=dataset, workers=processes, runs=runs)
    for remark in remarks:
        console.stdout.print(str(remark), markup=False)
    if any(remark.kind != "note" for remark in remarks):
        raise typer.Exit(console.EXIT_FAILED)


@app.command(epilog=_example("weightzoo export digits-hyp --layout ray-tune --to exports/tune_zoo_digits_hyp"))
def export(
    zoo: Annotated[str, typer.Argument(metavar="ZOO|FOLDER", help="A packed zoo.")],
    layout: Annotated[str, typer.Option(help="ray-tune or huggingface.")],
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to write, which must not be there yet.")],
    license: Annotated[
        str | None, typer.Option(metavar="ID", help="With huggingface: the licence, as cc-by-4.0.")
    ] = None,
) -> None:
    """Write a packed zoo in a layout that others read."""
    from weightzoo.stages.exporting import export_zoo

    export_zoo(zoo, to, WORKSPACE, layout=layout, license=license)


@app.command(epilog=_example("weightzoo query", "\"test_accuracy > 0.9 and activation == 'tanh'\""))
def query(
    text: Annotated[str, typer.Argument(metavar="QUERY", help="Conditions on hyperparameters, tags and metrics.")],
    columns: Annotated[str | None, typer.Option(help="Comma-separated columns to print.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to print in the table.")] = 20,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print all rows and columns as CSV.")] = False,
) -> None:
    """List the runs that fulfil a condition: and, or, not, == != < <= > >=, in, parentheses."""
    from weightzoo.registry import Registry

    with console.progress("query", unit="runs"):
        found = Registry().query(text).frame()
    if columns is not None:
        wanted = [name.strip() for name in columns.split(",")]
        unknown = [name for name in wanted if name not in found.columns]
        if unknown:
            _refuse(f"no column {', '.join(unknown)}; there are {', '.join(found.columns)}")
        found = found[wanted]
    if as_csv:
        sys.stdout.write(found.to_csv(index=False))
    elif as_json:
        print_json(json.loads(str(found.to_json(orient="records"))))
    else:
        print_frame(found if columns is not None else found[_columns_to_show(found)], limit)


@app.command(epilog=_example("weightzoo inspect zoos/digits-hyp"))
def inspect(
    target: Annotated[str, typer.Argument(metavar="ZOO|FOLDER|RUN", help="A packed zoo or a run.")],
    as_json: JsonOption = False,
) -> None:
    """Show what a packed zoo or a run is made of."""
    from weightzoo.inspection import describe

    facts = describe(target, WORKSPACE)
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)


@app.command(epilog=_example("weightzoo checkpoint 3f2a9c... --epoch 7 --to epoch7.pt"))
def checkpoint(
    run: RunArgument,
    epoch: Annotated[int, typer.Option(min=0, help="The epoch; 0 is before training.")],
    to: Annotated[Path | None, typer.Option(help="A .safetensors or .pt file. [default: named after RUN]")] = None,
) -> None:
    """Take the weights of one epoch out of a run, as a plain state dict."""
    from weightzoo.inspection import export_checkpoint

    console.say(f"checkpoint  {export_checkpoint(run, epoch, to)}")


@app.command(epilog=_example("weightzoo retrain 3f2a9c..."))
def retrain(
    run: RunArgument,
    engine: Annotated[str | None, typer.Option(help="Default: the engine of the run.")] = None,
) -> None:
    """Train the member of a run again, alone, from its record, and compare the weights of every epoch."""
    from weightzoo.stages.retrain import retrain

    with console.progress("retrain", unit="epochs") as report:
        comparison = retrain(run, WORKSPACE, engine=engine, on_progress=report)
    console.stdout.print(str(comparison), markup=False)
    if not comparison.equal:
        raise typer.Exit(console.EXIT_FAILED)


@app.command(epilog=_example("weightzoo verify digits-hyp --sample 20"))
def verify(
    zoo: Annotated[str, typer.Argument(metavar="ZOO|FOLDER", help="A packed zoo.")],
    sample: Annotated[int, typer.Option(min=0, help="Models whose accuracy is measured again.")] = 10,
) -> None:
    """Check a packed zoo: hashes, shapes, finite weights, duplicates, splits, and accuracies measured again."""
    from weightzoo.stages.verify import verify

    findings = verify(zoo, WORKSPACE, sample=sample)
    for finding in findings:
        console.stdout.print(str(finding), markup=False)
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(console.EXIT_FAILED)


@app.command(epilog=_example("weightzoo repair digits-hyp --dry-run"))
def repair(
    zoo: Annotated[str, typer.Argument(metavar="ZOO", help="A zoo that params.yaml describes.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is broken, and do nothing.")] = False,
    threads: ThreadsOption = None,
) -> None:
    """Read all that belongs to a zoo, and make again what is broken: images, runs, packed files, DVC's copies."""
    from weightzoo.stages.repair import repair

    broken = repair(zoo, WORKSPACE, dry_run=dry_run, threads=threads)
    for one in broken:
        console.stdout.print(str(one), markup=False)
    if not broken:
        console.say(f"repair    {zoo}: nothing is broken")
    elif dry_run:
        raise typer.Exit(console.EXIT_FAILED)


@app.command(epilog=_example("weightzoo analyse digits-hyp spread --json"))
def analyse(
    zoo: Annotated[str | None, typer.Argument(metavar="ZOO|FOLDER", help="A packed zoo.")] = None,
    methods: Annotated[
        list[str] | None, typer.Argument(metavar="[METHOD]...", help="Default: all that can run.")
    ] = None,
    list_methods: Annotated[bool, typer.Option("--list", help="List the methods and whose they are.")] = False,
    quick: Annotated[
        bool | None, typer.Option("--quick/--full", help="A first look. [default: as in params.yaml, else --full]")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of all draws. [default: as in params.yaml, else 0]")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Methods at a time. [default: one a core]")] = None,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder to write. [default: reports/ZOO]")] = None,
    on: Annotated[
        str | None, typer.Option(metavar="ZOO|FOLDER", help="A second zoo, for methods that need one.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask what the weights of a zoo tell: scores, tables and figures of each method, into reports/ZOO."""
    if list_methods:
        _list_methods(as_json=as_json)
        return
    if zoo is None:
        _refuse("give a ZOO, or --list")
    from weightzoo.analysis.output import records
    from weightzoo.stages.analyse import analyse

    analysed = analyse(zoo, WORKSPACE, methods=methods or (), quick=quick, seed=seed, threads=threads, to=to, on=on)
    if as_json:
        print_json(records(analysed))
    else:
        for result in analysed.results:
            print_result(result)


@app.command(epilog=_example("weightzoo report digits-hyp"))
def report(zoo: ZooArgument) -> None:
    """Write the page about a zoo, with its figures: reports/ZOO."""
    from weightzoo.stages.report import report

    report(zoo, WORKSPACE)


@app.command(epilog=_example("weightzoo summary"))
def summary() -> None:
    """Say what has been built, and what to do next."""
    from weightzoo.inspection import summarise

    for line in summarise(WORKSPACE):
        console.stdout.print(line, markup=False)


@app.command(epilog=_example("weightzoo upload digits-hyp s3://zoos/digits-hyp"))
def upload(
    zoo: Annotated[str, typer.Argument(metavar="ZOO|FOLDER", help="A packed zoo.")],
    to: Annotated[str, typer.Argument(metavar="S3", help="s3://BUCKET/PREFIX")],
) -> None:
    """Upload a packed zoo, for `Zoo.open("s3://...")` to read parts of it. What is there is not sent again."""
    from weightzoo.stages.upload import upload

    upload(zoo, to, WORKSPACE)


@app.command(epilog=_example("weightzoo versions digits-hyp"))
def versions(
    zoo: Annotated[str, typer.Argument(metavar="ZOO", help="A zoo that was built and committed.")],
    as_json: JsonOption = False,
) -> None:
    """List the revisions of a packed zoo that DVC keeps, the newest first, with what changed."""
    from weightzoo.stages.versions import versions

    found = versions(zoo, WORKSPACE)
    if as_json:
        print_json([version.to_json() for version in found])
        return
    rows = [
        (
            " ".join([version.revision[:9], *version.tags]),
            f"{version.date:%Y-%m-%d %H:%M}",
            cell(version.models),
            cell(version.states),
            console.readable_size(version.bytes),
            cell(version.test_accuracy),
            version.changed,
        )
        for version in found
    ]
    print_rows(("revision", "date", "models", "states", "size", "test accuracy", "what changed"), rows)


@remote.command("setup", epilog=_example("weightzoo remote setup s3://zoos/lab --endpoint-url https://s3.example.org"))
def remote_setup(
    url: Annotated[str, typer.Argument(metavar="S3", help="s3://BUCKET/PREFIX")],
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint-url", metavar="URL", help="The server. [default: $AWS_ENDPOINT_URL, Amazon]"),
    ] = None,
    profile: Annotated[str | None, typer.Option(help="A profile of ~/.aws.")] = None,
    region: Annotated[str | None, typer.Option(help="The bucket's region.")] = None,
    local: Annotated[bool, typer.Option("--local", help="For this clone alone: write .dvc/config.local.")] = False,
) -> None:
    """Let `dvc push` go to S3, and the artifacts of new zoos' runs too, once writing, reading and deleting works.

    Keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, or .dvc/config.local, and are never written.
    """
    from weightzoo.stages.remote import setup

    setup(url, WORKSPACE, endpoint=endpoint, profile=profile, region=region, local=local)


@remote.command("check", epilog=_example("weightzoo remote check"))
def remote_check() -> None:
    """Write, list, read and delete an object at every remote on S3, and count unfinished uploads."""
    from weightzoo.stages.remote import check

    lines = check(WORKSPACE)
    for line in lines:
        console.stdout.print(line, markup=False)
    if any(line.startswith("error") for line in lines):
        raise typer.Exit(console.EXIT_FAILED)


@remote.command("sweep", epilog=_example("weightzoo remote sweep --older-than 24 --dry-run"))
def remote_sweep(
    url: Annotated[str | None, typer.Argument(metavar="[S3]", help="Below this place. [default: all remotes]")] = None,
    hours: Annotated[
        float, typer.Option("--older-than", metavar="HOURS", min=0, help="Longer than any upload takes.")
    ] = 24,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List them, and do nothing.")] = False,
) -> None:
    """Abort multipart uploads that a killed push left behind: they take room, and are in no listing."""
    import datetime

    from weightzoo.stages.remote import sweep

    for upload in sweep(WORKSPACE, url, older_than=datetime.timedelta(hours=hours), dry_run=dry_run):
        size = console.readable_size(upload.bytes)
        console.stdout.print(f"{upload.begun:%Y-%m-%d %H:%M}  {size:>8}  {upload.place}", markup=False)


@app.command("tracking-uri", epilog=_example("weightzoo tracking-uri"))
def tracking_uri() -> None:
    """Print where runs are recorded, without a password: MLFLOW_TRACKING_URI, or the database in mlruns."""
    from weightzoo.redaction import redact
    from weightzoo.tracking import default_tracking_uri

    console.stdout.print(redact(default_tracking_uri()), markup=False)


def _execution(kind: str | None, address: str | None) -> Execution | None:
    """What the options ask for; None if that is nothing, so that params.yaml decides."""
    from weightzoo.spec import LocalExecution, RayExecution

    if kind == "local" and address is None:
        return LocalExecution()
    if kind == "ray":
        return RayExecution(address=address)
    if kind is not None or address is not None:
        _refuse("give --execution local, --execution ray, or --execution ray --address HOST:PORT")
    return None


def _plan_all(params: Params, *, calibrate: bool, as_json: bool) -> None:
    from weightzoo.overview import overview

    with console.progress("plan", unit="zoos") as report:
        made = overview(params, calibrate=calibrate, on_zoo=report)
    if as_json:
        print_json(made.to_json())
    else:
        console.stdout.print(made.render())


def _list_methods(*, as_json: bool) -> None:
    from weightzoo.analysis.methods import METHODS

    if as_json:
        print_json([dataclasses.asdict(method) for method in METHODS])
        return
    print_rows(
        ("method", "what it tells", "section", "quick", "needs", "method of"),
        [(m.name, m.title, m.section, "yes" if m.quick else "", ", ".join(m.needs), m.paper) for m in METHODS],
    )


def _columns_to_show(found: Any) -> list[str]:
    """What differs between the runs, and their main results, so that a table fits a terminal.

    Members are named by their own id, which every verb takes and which is half as long as MLflow's.
    """
    from weightzoo.members import FACTORS

    varied = [name for name in ("zoo", *FACTORS, "seed_init", "status") if found[name].nunique(dropna=False) > 1]
    return ["member", *varied, "test_accuracy", "generalization_gap"]


def _refuse(message: str) -> NoReturn:
    raise typer.BadParameter(message)


__all__ = ["app", "main"]
