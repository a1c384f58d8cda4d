"""Rules on plugins: what a model names, what the server loads, and what a pipeline needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from builder import cmake, dali_operators, pbtxt
from builder.checks.context import Context
from builder.checks.repository import Model
from builder.errors import did_you_mean
from builder.findings import Finding, Place
from builder.signature import OperatorUse, Signature

_WRONG_SEPARATOR = re.compile(r"[;,]|\s+(?=/)")
MODELS = "/models/"


def check_parameter(model: Model, context: Context) -> Iterator[Finding]:
    """Parameter plugin_libs of a config.pbtxt."""
    assert model.config
    value = model.config.parameter(pbtxt.PLUGIN_LIBS)
    if value is None:
        return
    place = model.place("parameters", pbtxt.PLUGIN_LIBS, "value")
    if _WRONG_SEPARATOR.search(value):
        parts = [part for part in re.split(r"[;,:\s]+", value) if part]
        yield model.finding(
            "plugin-separator",
            f"plugin_libs is {value!r}: only ':' separates paths, so this is one file name",
            place,
            f"write {':'.join(parts)!r}, or leave the parameter out: the list is made of the libraries themselves",
        )
        return
    for path in model.config.libraries or ():
        yield from _check_path(model, path, place, "plugin_libs names", context, is_parameter=True)


def _check_path(
    model: Model, path: str, place: Place, who: str, context: Context, *, is_parameter: bool
) -> Iterator[Finding]:
    """
    Args:
        who: says what names the path, for the message.
        is_parameter: plugin_libs does, which must be of the server's own list; a pipeline may load anything.
    """
    if not path.startswith("/"):
        yield model.finding(
            "plugin-path",
            f"{who} {path!r}, which is not an absolute path{_absolute(path, context)}",
            place,
            f"libraries are in {MODELS} in the image: write {MODELS}{path.rpartition('/')[2]}",
        )
        return
    present = context.present
    if present is None or path in present:
        if is_parameter:
            yield from _check_listed(model, path, place, who, context)
        return
    if is_parameter or path.startswith(MODELS):  # the base may have libraries elsewhere
        yield model.finding(
            "plugin-missing",
            f"{who} {path}, which the image does not have{did_you_mean(path, present)}",
            place,
            f"the image has {', '.join(present) or 'no plugin'}; name one of these, or add the library to plugin/",
            target=context.target,
        )


def _check_listed(model: Model, path: str, place: Place, who: str, context: Context) -> Iterator[Finding]:
    if context.libraries is None or path in context.libraries:
        return
    yield model.finding(
        "plugin-unlisted",
        f"{who} {path}, which the image has, but `plugins` in builder.toml leaves out: the server does not load it",
        place,
        "add the library to `plugins`, or remove that key: then all of them are loaded",
        target=context.target,
    )


def _absolute(path: str, context: Context) -> str:
    return did_you_mean(MODELS + path.rpartition("/")[2], context.present or ())


def check_pipeline(model: Model, signature: Signature, context: Context) -> Iterator[Finding]:
    """What a pipeline loads and calls."""
    for plugin in signature.plugins:
        place = model.within(signature.origin, plugin.line)
        yield from _check_path(model, plugin.path, place, "load_library loads", context, is_parameter=False)
    yield from _check_operators(model, signature, context)
    line = signature.gpu_line
    if line is not None and not context.has_gpu:
        yield model.finding(
            "gpu-operator-on-cpu-target",
            f"the pipeline of model {model.name!r} needs a GPU, and the target has none",
            _line(model, signature, line),
            'write device="cpu" and leave .gpu() out, or allow the target a GPU',
            target=context.target,
        )


def _check_operators(model: Model, signature: Signature, context: Context) -> Iterator[Finding]:
    registered = context.registered()
    if registered is None:
        return
    elsewhere = context.registered_elsewhere()
    for use in dict.fromkeys(signature.operators):
        if use.is_builtin:
            continue
        if use.key not in registered:
            yield from _unregistered(model, signature, use, context, list(elsewhere.get(use.key, ())))
            continue
        libraries = registered[use.key]
        devices = {device for operator in libraries.values() for device in operator.devices}
        if use.device is not None and use.device not in devices:
            names = ", ".join(f"{path} for {'/'.join(each.devices)}" for path, each in libraries.items())
            yield model.finding(
                "operator-device-missing",
                f"operator {use} is used on {use.device}, but only registered by {names}",
                _line(model, signature, use.line),
                f'write device="{sorted(devices)[0]}"' if len(devices) == 1 else "use it on another device",
                detail=(
                    f"{use} of {use.device} needs a DALI_REGISTER_OPERATOR for that device in plugin/, and cuda on",
                ),
                target=context.target,
            )


def _unregistered(
    model: Model, signature: Signature, use: OperatorUse, context: Context, elsewhere: list[str]
) -> Iterator[Finding]:
    place = _line(model, signature, use.line)
    if elsewhere:
        yield model.finding(
            "plugin-unlisted",
            f"operator {use} is in {elsewhere[0]}, which the server does not load: "
            "`plugins` in builder.toml leaves it out",
            place,
            "add the library to `plugins`, or remove that key: then all of them are loaded",
            target=context.target,
        )
        return
    names = sorted({each.name for path in context.libraries or () for each in context.operators.get(path) or ()})
    hint = did_you_mean(str(use), names)
    known = dali_operators.are_known(context.dali)
    if not known and not hint:
        return  # it may be one of that DALI's
    yield model.finding(
        "operator-unregistered",
        f"no plugin registers the operator {use}{', and DALI has none of that name' if known else ''}{hint}",
        place,
        f"the plugins register {', '.join(names) or 'nothing'}; mend the name, or add the operator to plugin/",
        target=context.target,
    )


def _line(model: Model, signature: Signature, line: int) -> Place:
    return model.within(signature.origin, line if signature.origin.suffix == ".py" else 0)


def check_sources(project_root: Path, plugin_folder: Path, *, cuda: bool = True) -> Iterator[Finding]:
    """The sources that CMakeLists.txt names and that are not there, unless something may make them.

    Args:
        plugin_folder: the folder plugin/, which need not exist.
        cuda: whether a target compiles for GPUs; otherwise add_dali_plugin leaves out those of GPU operators.
    """
    if cmake.may_make_sources(plugin_folder):
        return
    top = plugin_folder.resolve()
    for library in cmake.libraries(plugin_folder) or ():
        for source in library.written:
            # Without a suffix CMake may try some.
            known = source.suffix and source.resolve().is_relative_to(top)
            if not known or source.exists() or not library.compiles(source, cuda=cuda):
                continue
            told = (Path(plugin_folder.name) / source.resolve().relative_to(top)).as_posix()
            beside = [each.name for each in source.parent.iterdir()] if source.parent.is_dir() else []
            yield Finding(
                "plugin-source-missing",
                f"library {library.name} is made of {told}, which does not exist" + did_you_mean(source.name, beside),
                Place.within(project_root, library.file, library.line),
                "mend the name, add the file, or take it out of add_dali_plugin",
            )
