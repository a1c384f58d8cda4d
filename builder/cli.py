"""The commands; the only place that prints results."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
import typer.exceptions

from builder import __version__
from builder.errors import INTERRUPTED, BadUsage, BuilderError, Interrupted, VerificationError
from builder.output import Output, is_json_wanted

app = typer.Typer(
    name="builder",
    help="From a custom DALI operator to a verified Triton image in a registry.\n\n"
    "Examples:\n\n"
    "  python -m builder build                       compile, serialize, build the image\n\n"
    "  python -m builder smoke                       prove it by inference\n\n"
    "  python -m builder push localhost:5000/mydali  push what was proven, print its digest\n\n"
    "  python -m builder up                          serve what was pushed\n\n"
    "Exit codes: 2 the project or the command line, 3 the machine, 4 the build, 5 verification, 6 the push, "
    "130 interrupted.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    # Shells complete a command's name, and this one's is `python` when it is run as a module.
    add_completion=Path(sys.argv[0]).name != "__main__.py",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        metavar="NAME",
        help="A target of builder.toml, or 'all'; may be given again.",
        show_default="the first",
    ),
]
Directory = Annotated[
    Path, typer.Option("--project", "-C", metavar="DIR", help="The folder with builder.toml.", show_default="here")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; errors and results alone.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show every command that is run.")]
HERE = Path()


def _version(asked: bool) -> None:
    if asked:
        print(f"builder {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(BadUsage.exit_code)


def _prepare(json: bool, quiet: bool, verbose: bool) -> Output:
    output = Output(json=json, quiet=quiet)
    if verbose:
        logging.basicConfig(stream=sys.stderr, format="%(message)s")
        logging.getLogger("builder").setLevel(logging.INFO)
    return output


@app.command()
def build(
    target: Targets = None,
    project: Directory = HERE,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every stage again.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compile the plugin, serialize the pipelines, and build the image.

    Prints the image's digest. Examples:

      python -m builder build

      python -m builder build --target embedded-dali2 --json
    """
    from builder import output as out
    from builder import project as projects
    from builder import revision
    from builder.docker.engine import Engine, require_buildx
    from builder.steps import base, image, models, parts

    output = _prepare(json, quiet, verbose)
    began = time.monotonic()
    here = projects.load(project)
    chosen = here.select(tuple(target or ()))
    configs = models.check_sources(here, chosen)
    engine = Engine.connect()
    require_buildx()
    bases = {name: base.resolve(here, each, engine, output.console) for name, each in chosen.items()}
    made = parts.run(here, bases, output.progress, no_cache=no_cache)
    for each in made:
        models.check_parts(here, configs, each)
        parts.keep(here, each)
    by_target = {each.target: each for each in made}
    built = image.run(
        here,
        engine,
        by_target,
        bases,
        revision.of(here.root),
        output.progress,
        plugins=models.plugins(configs),
        began=began,
    )
    out.images(built, by_target, output.progress)
    output.result(out.build_document(built, time.monotonic() - began), tuple(each.digest for each in built))


@app.command()
def smoke(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE", help="Any image of the engine; the target's own by default.", show_default=False
        ),
    ] = "",
    target: Targets = None,
    project: Directory = HERE,
    gpus: Annotated[
        str, typer.Option("--gpus", metavar="WHICH", help="'all', or device numbers separated by commas.")
    ] = "",
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Of the random requests.", show_default="random")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, metavar="SECONDS", help="Seconds to wait for the server.")
    ] = 120.0,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Start the image and prove it: inference over HTTP and gRPC, and a control without the plugin, which must fail.

    Prints the digest that passed. Examples:

      python -m builder smoke

      python -m builder smoke --target all --gpus all --json

      python -m builder smoke registry.example.com/team/mydali:1.0
    """
    import secrets

    from builder import output as out
    from builder import project as projects
    from builder.artifacts import Image, Verification
    from builder.docker.engine import Engine
    from builder.steps import smoke as step

    output = _prepare(json, quiet, verbose)
    here = projects.load(project)
    if image and target:
        raise BadUsage("an image and --target do not go together", where="smoke", remedy="give one of them")
    # Records of earlier runs are read first: there is no use in an engine without an image.
    names = [] if image else list(here.select(tuple(target or ())))
    wanted = {name: Image.load(here, name) for name in names}
    engine = Engine.connect()
    engine.sweep()
    chosen_seed = secrets.randbits(32) if seed is None else seed
    verified: list[Verification] = []

    def verify(digest: str, reference: str, name: str) -> Verification:
        try:
            return step.run(
                engine, digest, reference, name, output.progress, seed=chosen_seed, gpus=gpus, timeout=timeout
            )
        except VerificationError as error:
            if name:
                Verification.discard(here, name)  # nothing vouches for it any more
            error.partial = {**out.smoke_document(verified), "passed": False}
            raise

    if image:
        verified.append(verify(engine.image(image)["Id"], image, ""))
    for name, each in wanted.items():
        verified.append(verify(each.digest, each.reference, name).save(here))
    output.result(out.smoke_document(verified), tuple(each.digest for each in verified))


@app.command()
def push(
    to: Annotated[
        str,
        typer.Argument(
            metavar="REPOSITORY[:TAG]", help="Where to; builder.toml's repository by default.", show_default=False
        ),
    ] = "",
    target: Targets = None,
    project: Directory = HERE,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Push the verified image, and print the one reference to deploy it by: repository@sha256:...

    Credentials come from Docker's own configuration (`docker login`). Examples:

      python -m builder push

      python -m builder push registry.example.com/team/mydali:1.0 --json
    """
    from builder import output as out
    from builder import project as projects
    from builder.artifacts import Image, Verification
    from builder.docker.engine import Engine, require_buildx
    from builder.reference import Reference
    from builder.steps import push as step

    output = _prepare(json, quiet, verbose)
    here = projects.load(project)
    names = list(here.select(tuple(target or ())))
    where = {name: here.pushed_as(name) for name in names}
    if to:
        given = Reference.parse(to)
        if given.digest:
            raise BadUsage("a push cannot choose its digest", where=to, remedy="give REPOSITORY[:TAG]")
        if given.tag and len(names) > 1:
            raise BadUsage(
                "one tag cannot name several targets", where=to, remedy="leave the tag out, or push one target"
            )
        where = {name: given if given.tag else given.with_tag(str(here.pushed_as(name).tag)) for name in names}
    ready = [(Image.load(here, name), Verification.find(here, name)) for name in names]
    # All of them first: one that is refused must not leave the others pushed.
    for built, verification in ready:
        step.check_verified(built, verification)
    engine = Engine.connect()
    require_buildx()
    pushed = [
        step.run(engine, built, verification, where[built.target], output.progress).save(here)
        for built, verification in ready
    ]
    output.result(out.push_document(pushed), tuple(each.reference for each in pushed))


@app.command()
def up(
    target: Targets = None,
    project: Directory = HERE,
    gpu: Annotated[bool, typer.Option("--gpu", help="Serve with all GPUs of this machine.")] = False,
    timeout: Annotated[
        int, typer.Option("--timeout", min=1, metavar="SECONDS", help="Seconds to wait for the server.")
    ] = 180,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Serve the pushed image with docker compose, by its digest.

    HTTP_PORT, GRPC_PORT, METRICS_PORT and BIND choose where. Example:

      HTTP_PORT=9000 python -m builder up
    """
    from builder import project as projects
    from builder.artifacts import Pushed
    from builder.docker.engine import Engine, require_compose
    from builder.steps import deploy

    output = _prepare(json, quiet, verbose)
    here = projects.load(project)
    names = list(here.select(tuple(target or ())))
    if len(names) > 1:
        raise BadUsage("compose serves one target at a time", where="up", remedy="give one --target")
    pushed = Pushed.load(here, names[0])
    Engine.connect()
    require_compose()
    ports = deploy.up(here, pushed.reference, "triton-gpu" if gpu else "triton", timeout)
    output.progress.print(
        f"serving {pushed.reference}: HTTP {ports['http']}, gRPC {ports['grpc']}, metrics {ports['metrics']}"
    )
    output.result({"reference": pushed.reference, **ports}, (pushed.reference,))


@app.command()
def down(project: Directory = HERE, json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Stop what `up` started."""
    from builder import project as projects
    from builder.docker.engine import Engine, require_compose
    from builder.steps import deploy

    output = _prepare(json, quiet, verbose)
    here = projects.load(project)
    Engine.connect()
    require_compose()
    deploy.down(here)
    output.progress.print("stopped")
    output.result({"stopped": True})


@app.command()
def base(project: Directory = HERE, json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Print the Debian image that the embedded base starts from; pull it, or make it where it cannot be pulled.

    For plain docker: DEBIAN_IMAGE=$(python -m builder base) docker compose build
    """
    from builder import project as projects
    from builder.docker.engine import Engine
    from builder.steps import base as step

    output = _prepare(json, quiet, verbose)
    here = projects.load(project)
    name = step.debian(here, Engine.connect(), output.progress)
    output.result({"debian_image": name}, (name,))


class _Stopped(BaseException):
    """A signal that asks to stop. Not KeyboardInterrupt, of which typer makes an exit of its own."""


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the command through its `finally`s; later ones do not disturb these."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped(number)

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _program() -> str:
    """What the user typed; shells complete the installed command only."""
    name = Path(sys.argv[0]).name
    return "python -m builder" if name == "__main__.py" else name


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs one command and exits with its code."""
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    output = Output(json=is_json_wanted())
    try:
        with _signals():
            status: Any = app(arguments, prog_name=_program(), standalone_mode=False)
        return status if isinstance(status, int) else 0
    except BuilderError as error:
        output.error(error)
        return error.exit_code
    except _Stopped as stopped:
        number = int(stopped.args[0])
        output.error(Interrupted("interrupted", remedy="run it again; what earlier commands left is untouched"))
        return INTERRUPTED if number == signal.SIGINT else 128 + number
    except typer.exceptions.TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        output.error(BadUsage(message, where="python -m builder", remedy="see --help"))
        return BadUsage.exit_code
    except Exception as error:  # a mistake of ours: no traceback for the user, but one for whoever mends it
        if known := _of_the_engine(error):
            output.error(known)
            return known.exit_code
        with tempfile.NamedTemporaryFile("w", prefix="builder-", suffix=".traceback", delete=False) as report:
            traceback.print_exc(file=report)
        output.error(
            BuilderError(
                f"this is a bug of the builder: {type(error).__name__}: {error}",
                where=report.name,
                remedy="report it with that file",
            )
        )
        return BuilderError.exit_code


def _of_the_engine(error: Exception) -> BuilderError | None:
    """What an engine that stops in the middle makes the SDK raise, in whatever call was next."""
    if "builder.docker.engine" not in sys.modules:
        return None
    from builder.docker.engine import foreign

    return foreign(error)
