"""Static reading of a dali.py: what is certain of its pipeline without running it.

What depends on a helper function, a condition, a loop or a value that is not written down is unknown, never guessed.
"""

from __future__ import annotations

import ast
import builtins
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from builder import dali_operators
from builder.findings import Finding, Place
from builder.signature import LoadedPlugin, OperatorUse, Signature, Tensor, rank

FILE_NAME = "dali.py"

_AUTOSERIALIZE = "nvidia.dali.plugin.triton.autoserialize"
_PIPELINE_DEFS = frozenset(
    f"nvidia.dali.{module}pipeline_def" for module in ("", "pipeline.", "pipeline.experimental.", "experimental.")
)
_TYPES = {
    "UINT8": "TYPE_UINT8", "UINT16": "TYPE_UINT16", "UINT32": "TYPE_UINT32", "UINT64": "TYPE_UINT64",
    "INT8": "TYPE_INT8", "INT16": "TYPE_INT16", "INT32": "TYPE_INT32", "INT64": "TYPE_INT64",
    "FLOAT16": "TYPE_FP16", "FLOAT": "TYPE_FP32", "FLOAT64": "TYPE_FP64", "BOOL": "TYPE_BOOL",
}  # fmt: skip
# Calls that make no operator, whatever they are given.
_HARMLESS_MODULES = frozenset({"numpy", "np"}) | sys.stdlib_module_names
_HARMLESS_BUILTINS = frozenset(
    ("abs", "bool", "bytes", "dict", "enumerate", "float", "frozenset", "int", "isinstance", "len", "list", "max",
     "min", "print", "range", "repr", "reversed", "round", "set", "sorted", "str", "sum", "tuple", "zip")
)  # fmt: skip
_HARMLESS_MODULES_OF_DALI = ("nvidia.dali.types.", "nvidia.dali.math.", "nvidia.dali.plugin_manager.")
_LARGEST_POWER = 64


class _Unknown:
    """A value that cannot be told."""

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = _Unknown()


@dataclass
class Reading:
    """A dali.py, as far as it can be read."""

    signature: Signature | None
    """None: not even which function makes the pipeline is known."""
    findings: list[Finding]


class Unparsable(Exception):
    """A file is not what the Python that runs the builder understands; the message goes on after the file's name."""

    def __init__(self, what: str, line: int = 0, column: int = 0) -> None:
        super().__init__(what)
        self.line, self.column = line, column


def parse(path: Path) -> ast.Module:
    """A Python file's syntax tree.

    Raises:
        OSError: it cannot be read.
        Unparsable: it is not Python, or nested deeper than can be parsed.
    """
    data = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a string is the user's business
            return ast.parse(data, str(path))
    except (SyntaxError, ValueError) as error:  # ValueError: a null byte
        line, column = getattr(error, "lineno", None) or 0, getattr(error, "offset", None) or 0
        what = getattr(error, "msg", None) or str(error)
        # Another Python may take it: newer ones know more syntax.
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise Unparsable(f"is not Python {version}: {what}", line, max(column, 0)) from None
    except (RecursionError, MemoryError):
        raise Unparsable("cannot be parsed: it is nested too deeply") from None


def read(path: Path, root: Path, model: str) -> Reading:
    """Reads the source in `path`; places are as seen from `root`."""
    try:
        tree = parse(path)
    except Unparsable as error:
        finding = Finding(
            "pipeline-syntax",
            f"{path.name} {error}",
            Place.within(root, path, error.line, error.column),
            "mend that line, or run the builder with the Python that the base has" if error.line else "mend the file",
            model=model,
        )
        return Reading(None, [finding])
    except OSError as error:
        finding = Finding(
            "pipeline-syntax",
            f"{path.name} cannot be read: {type(error).__name__}: {error}",
            Place.within(root, path),
            "make it a readable Python file",
            model=model,
        )
        return Reading(None, [finding])
    try:
        return _Module(path, root, model, tree).read()
    except RecursionError:  # an expression nested as deep as no one writes it
        return Reading(None, [])


@dataclass
class _Scope:
    """Names that stand for something known; a name that is bound twice stands for nothing."""

    dotted: dict[str, str] = field(default_factory=dict)
    """Modules and what was imported from them, such as fn: nvidia.dali.fn."""
    constants: dict[str, object] = field(default_factory=dict)
    outputs: dict[str, str | None] = field(default_factory=dict)
    """Local variables that are one output of an operator, and the name that it was given."""


class _Module:
    """One dali.py."""

    def __init__(self, path: Path, root: Path, model: str, tree: ast.Module) -> None:
        self._path, self._root, self._model, self._tree = path, root, model, tree
        self._findings: list[Finding] = []
        self._opaque = False  # something is imported that cannot be seen
        self._scope = _Scope()

    def read(self) -> Reading:
        self._read_names()
        functions = self._functions()
        if functions is None:
            return Reading(self._partial(), self._findings)
        if not functions:
            self._find(
                "autoserialize-missing",
                "no function is decorated with @autoserialize",
                1,
                0,
                "write `@autoserialize` (from nvidia.dali.plugin.triton) above the pipeline's @pipeline_def",
            )
            return Reading(None, self._findings)
        if len(functions) > 1:
            names = ", ".join(f"{each.name} (line {each.lineno})" for each in functions)
            self._find(
                "autoserialize-several",
                f"{len(functions)} functions are decorated with @autoserialize: {names}",
                functions[1].lineno,
                functions[1].col_offset + 1,
                "decorate the one that the model is made of, and no other",
            )
            return Reading(None, self._findings)
        definition = self._definition(functions[0])
        if definition is None:
            return Reading(self._partial(), self._findings)
        return Reading(_Pipeline(self, functions[0], definition).signature(), self._findings)

    # Names.

    def _read_names(self) -> None:
        """What the module's own names stand for; a name that is bound twice, or by a statement of another kind, does
        not stand for anything."""
        bound = _bindings(self._tree)
        for statement in self._tree.body:
            for name, dotted in _imports(statement):
                if name == "*":
                    self._opaque = True
                elif bound.get(name) == 1:
                    self._scope.dotted[name] = dotted
        imports = [name for node in ast.walk(self._tree) for name, _ in _imports(node)]
        roots = {dotted.split(".")[0] for node in ast.walk(self._tree) for _, dotted in _imports(node)}
        # A module of the user's may hold the decorated function: DALI looks into modules that were imported.
        self._opaque |= "*" in imports or bool(roots - _HARMLESS_MODULES - {"nvidia", ""})
        for statement in self._tree.body:
            match statement:
                case (
                    ast.Assign(targets=[ast.Name(id=name)], value=value)
                    | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                ) if bound.get(name) == 1:
                    if full := self.dotted(value):
                        self._scope.dotted[name] = full
                    elif (constant := self.constant(value)) is not UNKNOWN:
                        self._scope.constants[name] = constant

    def dotted(self, node: ast.AST, scope: _Scope | None = None) -> str | None:
        """The full name that an expression stands for, such as nvidia.dali.fn.resize."""
        match node:
            case ast.Name(id=name):
                return (scope or self._scope).dotted.get(name)
            case ast.Attribute(value=value, attr=attribute):
                base = self.dotted(value, scope)
                return f"{base}.{attribute}" if base else None
        return None

    def constant(self, node: ast.expr | None, scope: _Scope | None = None) -> object:
        """The value of an expression of constants; types of DALI's are Triton's names. UNKNOWN for any other."""
        scope = scope or self._scope
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=variable) if variable in scope.constants:
                return scope.constants[variable]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                number = self.constant(operand, scope)
                return -number if isinstance(number, int | float) else UNKNOWN
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                values = [self.constant(each, scope) for each in elements]
                return UNKNOWN if UNKNOWN in values else values
            case ast.BinOp(left=left, op=operation, right=right):
                return _calculated(self.constant(left, scope), operation, self.constant(right, scope))
            case ast.Name() | ast.Attribute():
                full = self.dotted(node, scope) or ""
                if full.startswith("nvidia.dali.types."):
                    return _TYPES.get(full.rpartition(".")[2], UNKNOWN)
        return UNKNOWN

    def local(self, function: ast.FunctionDef) -> _Scope:
        """The names as they stand at the beginning of `function`; those that it binds itself are taken out."""
        bound = _bindings(function)
        scope = _Scope(
            {name: value for name, value in self._scope.dotted.items() if name not in bound},
            {name: value for name, value in self._scope.constants.items() if name not in bound},
        )
        arguments = function.args
        defaults = dict(
            zip(
                [each.arg for each in (*arguments.posonlyargs, *arguments.args)][::-1],
                arguments.defaults[::-1],
                strict=False,
            )
        )
        defaults |= {
            each.arg: value
            for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            if value is not None
        }
        for name, value in defaults.items():  # it is called without arguments
            if bound.get(name) == 1 and (constant := self.constant(value)) is not UNKNOWN:
                scope.constants[name] = constant
        return scope

    # The function.

    def _functions(self) -> list[ast.FunctionDef] | None:
        """The functions under @autoserialize; None where there may be others, or none of them after all."""
        marks = [node for node in ast.walk(self._tree) if self._is_mark(node)]
        found = [
            each
            for each in self._tree.body
            if isinstance(each, ast.FunctionDef) and any(self._is_mark(mark) for mark in each.decorator_list)
        ]
        names = [each.name for each in found]
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        mentioned = any(
            isinstance(node, ast.Constant) and isinstance(node.value, str) and "autoserialize" in node.value
            for node in ast.walk(self._tree)
            if id(node) not in docstrings
        )
        if len(marks) != len(found) or len(set(names)) != len(names) or mentioned or self._rebound(names):
            return None  # autoserialize(f), a decorator under a condition, the same name twice, ...
        if not found and (self._opaque or self._has_unseen_names()):
            return None
        return found

    def _is_mark(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Name | ast.Attribute) and self.dotted(node) == _AUTOSERIALIZE

    def _rebound(self, names: list[str]) -> bool:
        bound = _bindings(self._tree)
        return any(bound.get(name) != 1 for name in names)

    def _has_unseen_names(self) -> bool:
        """Whether autoserialize is imported in a way that `dotted` does not follow."""
        known = [name for name, dotted in self._scope.dotted.items() if dotted == _AUTOSERIALIZE]
        imported = [
            name for node in ast.walk(self._tree) for name, dotted in _imports(node) if dotted == _AUTOSERIALIZE
        ]
        return len(imported) > len(known) or any(
            isinstance(node, ast.Attribute) and node.attr == "autoserialize" for node in ast.walk(self._tree)
        )

    def _definition(self, function: ast.FunctionDef) -> ast.expr | None:
        """The decorator @pipeline_def, below @autoserialize."""
        before = True
        for decorator in function.decorator_list:
            if self._is_mark(decorator):
                before = False
                continue
            target = decorator.func if isinstance(decorator, ast.Call) else decorator
            if self.dotted(target) in _PIPELINE_DEFS:
                if not before:
                    return decorator
                self._find(
                    "autoserialize-misplaced",
                    f"@autoserialize stands below @pipeline_def, above {function.name}",
                    decorator.lineno,
                    decorator.col_offset + 1,
                    "write @autoserialize first, @pipeline_def below it",
                )
        return None

    def binds(self, name: str) -> bool:
        return name in _bindings(self._tree)

    def own(self, name: str) -> ast.FunctionDef | ast.ClassDef | None:
        """The module's function or class of that name, if the name stands for nothing else."""
        for statement in self._tree.body if _bindings(self._tree).get(name) == 1 else ():
            if isinstance(statement, ast.FunctionDef | ast.ClassDef) and statement.name == name:
                return statement
        return None

    def plugins(self) -> Iterator[LoadedPlugin]:
        """Every load_library of a path that is written down."""
        for node in ast.walk(self._tree):
            if (
                isinstance(node, ast.Call)
                and self.dotted(node.func) == "nvidia.dali.plugin_manager.load_library"
                and (node.args or node.keywords)
            ):
                path = self.constant(node.args[0] if node.args else node.keywords[0].value)
                if isinstance(path, str):
                    yield LoadedPlugin(path, node.lineno)

    def _partial(self) -> Signature:
        return Signature(self._path, "source", plugins=tuple(self.plugins()), complete=False)

    def _find(self, code: str, what: str, line: int, column: int, remedy: str) -> None:
        place = Place.within(self._root, self._path, line, column)
        self._findings.append(Finding(code, what, place, remedy, model=self._model))

    @property
    def path(self) -> Path:
        return self._path

    def find(self, code: str, what: str, node: ast.expr, remedy: str) -> None:
        self._find(code, what, node.lineno, node.col_offset + 1, remedy)


class _Pipeline:
    """The function that makes the graph: the statements that run once, one after the other, and what they call."""

    def __init__(self, module: _Module, function: ast.FunctionDef, definition: ast.expr) -> None:
        self._module, self._function, self._definition = module, function, definition
        self._scope = module.local(function)
        self._inputs: list[Tensor] = []
        self._operators: list[OperatorUse] = []
        self._gpu_lines: list[int] = []
        self._complete = not self._captures()
        self._result: ast.expr | None = None
        self._unused: set[str] = set()  # DALI leaves out of the graph what leads to no output
        self._returns = 0

    def signature(self) -> Signature:
        settings = self._settings()
        conditionals = settings is None or settings.get("enable_conditionals") not in (None, False)
        self._run(self._function.body)
        known = settings or {}
        names = self._output_names()
        batch_size = known.get("batch_size", known.get("max_batch_size"))
        if settings is not None and not {"batch_size", "max_batch_size"} & settings.keys():
            self._module.find(
                "batch-size-missing",
                "@pipeline_def has no batch_size",
                self._definition,
                "give it one: the largest batch that the model takes, as max_batch_size in config.pbtxt",
            )
        return Signature(
            self._module.path,
            "source",
            inputs=tuple(self._inputs),
            outputs=None if conditionals else _outputs(names, known.get("output_dtype"), known.get("output_ndim")),
            batch_size=batch_size if isinstance(batch_size, int) and batch_size > 0 else None,
            num_threads=_number(known.get("num_threads")),
            operators=tuple(self._operators),
            plugins=tuple(self._module.plugins()),
            gpu_lines=tuple(self._gpu_lines),
            complete=self._complete and not self._unused,
        )

    def _captures(self) -> bool:
        """Whether other decorators stand around the function, or it is no plain one: then nothing is certain."""
        plain = len(self._function.decorator_list) == 2
        return not plain or any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(self._function))

    def _settings(self) -> dict[str, object] | None:
        """The arguments of @pipeline_def; None where they cannot be told."""
        if not isinstance(self._definition, ast.Call):
            return {}
        if self._definition.args or any(each.arg is None for each in self._definition.keywords):
            return None
        return {each.arg or "": self._module.constant(each.value) for each in self._definition.keywords}

    def _run(self, body: list[ast.stmt]) -> None:
        for statement in body:
            match statement:
                case ast.Return(value=value):
                    self._returns += 1
                    self._result = value
                    self._evaluate(value)
                    return  # what follows never runs
                case ast.Expr(value=value):
                    self._evaluate(value)
                    if isinstance(value, ast.Call) and not self._is_harmless(value):
                        self._complete = False
                case ast.Assign(targets=targets, value=value):
                    self._evaluate(value)
                    for target in targets:
                        self._assign(target, value)
                case ast.AnnAssign(target=target, value=ast.expr() as value):
                    self._evaluate(value)
                    self._assign(target, value)
                case ast.AugAssign(target=target, value=value):
                    self._evaluate(value)
                    self._forget(target)
                case ast.Pass() | ast.Import() | ast.ImportFrom() | ast.Global() | ast.Nonlocal():
                    pass
                case ast.Assert(test=test):
                    self._uncertain(test)
                case ast.Delete(targets=targets):
                    for target in targets:
                        self._forget(target)
                case ast.With(items=items, body=inner):
                    for item in items:
                        self._evaluate(item.context_expr)
                        if item.optional_vars is not None:
                            self._forget(item.optional_vars)
                    self._run(inner)
                    if self._returns:
                        return
                case _:  # conditions, loops, functions, try: it may run never, once, or many times
                    self._uncertain(statement)

    def _uncertain(self, node: ast.AST) -> None:
        """Code that may not run: what it could bring is unknown, and so are the names that it binds."""
        if any(isinstance(each, ast.Call) and not self._is_harmless(each) for each in ast.walk(node)):
            self._complete = False
        if any(isinstance(each, ast.Return) for each in ast.walk(node)):
            self._returns += 2
            self._complete = False
        for each in ast.walk(node):
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store | ast.Del):
                self._forget(each)
            elif isinstance(each, ast.Name):
                self._unused.discard(each.id)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        pairs = [(target, value)]
        if (
            isinstance(target, ast.Tuple | ast.List)
            and isinstance(value, ast.Tuple | ast.List)
            and len(target.elts) == len(value.elts)
        ):
            pairs = list(zip(target.elts, value.elts, strict=True))
        # What is assigned is evaluated before any name changes its meaning.
        known = [
            (each, given, self._is_one(given), self._name(given), self._module.constant(given, self._scope))
            for each, given in pairs
        ]
        self._forget(target)
        for each, given, is_one, name, constant in known:
            match each:
                case ast.Name(id=variable):
                    if is_one:
                        self._scope.outputs[variable] = name
                    if constant is not UNKNOWN:
                        self._scope.constants[variable] = constant
                    elif isinstance(given, ast.Call):
                        self._complete &= variable not in self._unused
                        self._unused.add(variable)
                case ast.Tuple(elts=elements) | ast.List(elts=elements) if isinstance(value, ast.Call):
                    # An operator with several outputs gives one to each.
                    self._scope.outputs |= {part.id: None for part in elements if isinstance(part, ast.Name)}

    def _forget(self, target: ast.expr) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name):
                for names in (self._scope.dotted, self._scope.constants, self._scope.outputs):
                    names.pop(node.id, None)

    def _evaluate(self, node: ast.expr | None) -> None:
        """Notes the calls of an expression that certainly runs."""
        match node:
            case None | ast.Constant():
                return
            case ast.Name(id=variable):
                self._unused.discard(variable)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self._evaluate(test)
                self._uncertain(body)
                self._uncertain(orelse)
            case ast.BoolOp(values=[first, *others]):
                self._evaluate(first)
                for each in others:
                    self._uncertain(each)
            case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self._uncertain(node)
            case ast.NamedExpr(target=target, value=value):
                self._evaluate(value)
                self._assign(target, value)
            case ast.Call():
                self._evaluate(node.func)
                for argument in (*node.args, *(each.value for each in node.keywords)):
                    self._evaluate(argument)
                self._call(node)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self._evaluate(child)

    def _is_harmless(self, call: ast.Call) -> bool:
        name = self._module.dotted(call.func, self._scope)
        if name is not None:
            return name.startswith(_HARMLESS_MODULES_OF_DALI) or name.split(".")[0] in _HARMLESS_MODULES
        match call.func:
            case ast.Name(id=function):
                return function in _HARMLESS_BUILTINS and function not in _bindings(self._function)
            case ast.Attribute(attr="cpu"):
                return True
        return False

    def _call(self, call: ast.Call) -> None:
        name = self._module.dotted(call.func, self._scope) or ""
        for prefix in ("nvidia.dali.fn.", "nvidia.dali.ops."):
            if name.startswith(prefix):
                self._operator(call, name.removeprefix(prefix), is_class=prefix.endswith("ops."))
                return
        match call.func:
            case ast.Attribute(attr="gpu") if not call.args and not name:
                self._gpu_lines.append(call.lineno)
            case _ if not self._is_harmless(call):
                self._complete = False

    def _operator(self, call: ast.Call, name: str, is_class: bool) -> None:
        arguments = {each.arg: self._module.constant(each.value, self._scope) for each in call.keywords}
        spread = None in arguments
        device = arguments.get("device")
        is_source = dali_operators.key(name) == "externalsource"
        if is_class:
            self._complete = False  # what is made of it, and how often, is up to the calls of the object
        if is_source or "inputs." in name:
            self._source(call, arguments, spread)
            if device == "gpu":
                self._gpu_lines.append(call.lineno)
        else:
            known = device if isinstance(device, str) and not spread else None
            self._operators.append(OperatorUse(name, known, call.lineno))

    def _source(self, call: ast.Call, arguments: dict[str | None, object], spread: bool) -> None:
        """An external_source, or another operator that a request feeds."""
        name, layout = arguments.get("name"), arguments.get("layout")
        source = (
            call.args[0] if call.args else next((each.value for each in call.keywords if each.arg == "source"), None)
        )
        if source is not None and self._is_given(source):
            self._module.find(
                "input-has-source",
                f"external_source{f' {name!r}' if isinstance(name, str) else ''} has a source, which stays behind",
                call,
                "leave source= out: in the server, only requests feed an external_source, by its name",
            )
        elif "name" not in arguments and not spread:
            self._module.find(
                "input-unnamed",
                "an external_source has no name, so no request can feed it",
                call,
                "give it one: external_source(name=<the input's name in config.pbtxt>, ...)",
            )
        if not isinstance(name, str) or spread:
            self._complete = False
        dtype, ndim = arguments.get("dtype"), arguments.get("ndim")
        layout = layout if isinstance(layout, str) else None
        self._inputs.append(
            Tensor(
                name if isinstance(name, str) else None,
                dtype if isinstance(dtype, str) and dtype.startswith("TYPE_") else None,
                rank(_number(ndim), layout) if ndim is None or _number(ndim) is not None else None,
                layout,
                call.lineno,
            )
        )

    def _is_given(self, source: ast.expr) -> bool:
        """Whether a source certainly is one, and not None or something that nobody knows."""
        value = self._module.constant(source, self._scope)
        if value is not UNKNOWN:
            return value is not None
        match source:
            case ast.Lambda() | ast.ListComp() | ast.GeneratorExp() | ast.List() | ast.Tuple():
                return True
            case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)) if name not in _bindings(self._function):
                own = self._module.own(name)
                if isinstance(source, ast.Name):
                    return own is not None or (hasattr(builtins, name) and not self._module.binds(name))
                # What a class makes is no None, nor is what a generator does; of another function nobody knows.
                return isinstance(own, ast.ClassDef) or (
                    own is not None and any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(own))
                )
        return False

    # Outputs.

    def _output_names(self) -> list[str | None] | None:
        """The names of the outputs, None for those that cannot be told; None if their number cannot."""
        if self._returns != 1:
            return None
        match self._result:
            case ast.Tuple(elts=elements):
                if any(isinstance(each, ast.Starred) for each in elements):
                    return None
                return [self._name(each) for each in elements]
            case ast.expr() as result if self._is_one(result):
                return [self._name(result)]
        return None

    def _is_one(self, node: ast.expr) -> bool:
        """Whether an expression certainly is one output."""
        match node:
            case ast.Name(id=name):
                return name in self._scope.outputs
            case ast.BinOp(left=left, right=right) | ast.Compare(left=left, comparators=[right]):
                return self._is_one(left) or self._is_one(right)
            case ast.UnaryOp(operand=operand) | ast.Subscript(value=operand):
                return self._is_one(operand)
            case ast.Call(func=ast.Attribute(attr="gpu" | "cpu")):
                return True
            case ast.Call(func=function):
                # Several in one come as a list, which DALI refuses: only a tuple makes several outputs.
                return (self._module.dotted(function, self._scope) or "").startswith("nvidia.dali.fn.")
        return False

    def _name(self, node: ast.expr) -> str | None:
        """The name that an output was given."""
        match node:
            case ast.Name(id=name):
                return self._scope.outputs.get(name)
            case ast.Call(func=function) if (self._module.dotted(function, self._scope) or "").startswith(
                "nvidia.dali.fn."
            ):
                for each in node.keywords:
                    value = self._module.constant(each.value, self._scope)
                    if each.arg == "name" and isinstance(value, str):
                        return value
        return None


def _outputs(names: list[str | None] | None, dtype: object, ndim: object) -> tuple[Tensor, ...] | None:
    """Outputs with what @pipeline_def declares of them: one value for all, or a list with one for each."""
    lists = [value for value in (dtype, ndim) if isinstance(value, list)]
    if names is None:
        if not lists:
            return None
        names = [None] * len(lists[0])  # DALI insists on one for each output
    dtypes = dtype if isinstance(dtype, list) else [dtype] * len(names)
    ndims = ndim if isinstance(ndim, list) else [ndim] * len(names)
    if len(dtypes) != len(names) or len(ndims) != len(names):
        return None
    return tuple(
        Tensor(name, one if isinstance(one, str) and one.startswith("TYPE_") else None, _number(rank_))
        for name, one, rank_ in zip(names, dtypes, ndims, strict=True)
    )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _calculated(left: object, operation: ast.operator, right: object) -> object:
    if not (isinstance(left, int) and isinstance(right, int)):
        return left + right if isinstance(left, str) and isinstance(right, str) and _adds(operation) else UNKNOWN
    match operation:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.FloorDiv() if right:
            return left // right
        case ast.Pow() if 0 <= right <= _LARGEST_POWER and abs(left) <= _LARGEST_POWER:
            return left**right
        case ast.LShift() if 0 <= right <= _LARGEST_POWER:
            return left << right
    return UNKNOWN


def _adds(operation: ast.operator) -> bool:
    return isinstance(operation, ast.Add)


def _imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The names that an import binds, and what for."""
    match node:
        case ast.Import(names=names):
            for each in names:
                yield (each.asname, each.name) if each.asname else (each.name.split(".")[0],) * 2
        case ast.ImportFrom(module=module, names=names, level=level):
            for each in names:
                yield each.asname or each.name, f"{'.' * level}{module or ''}.{each.name}"


def _bindings(node: ast.AST) -> dict[str, int]:
    """How often each name is bound anywhere below `node`; imports of one top-level module count once."""
    counts: dict[str, int] = {}
    modules = set()

    def bind(name: str) -> None:
        counts[name] = counts.get(name, 0) + 1

    for each in ast.walk(node):
        match each:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                bind(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) if each != node:
                bind(name)
            case ast.Import() | ast.ImportFrom():
                for name, dotted in _imports(each):
                    if (name, dotted) not in modules:
                        modules.add((name, dotted))
                        bind(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                bind(name)
            case ast.MatchMapping(rest=str(name)):
                bind(name)
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                for name in names:
                    bind(name)
    return counts
