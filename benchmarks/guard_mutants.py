"""Mutation test of the code that decides: would the tests notice if one place of it said something else?

    python benchmarks/guard_mutants.py [NAME ...]

NAME picks targets of `TARGETS`; without a name all of them run. Each mutant is one change of one operator, constant,
condition or statement of a function that decides. A forked child runs the target's test files with the changed code. A
mutant survives where these tests pass. Survivors are printed with their line, and docs/research/reliability.md explains
each. The exit code is 1 where a survivor is not in `EQUIVALENT`, and 2 where a target names a module, function or test
file that does not exist.

mutmut and cosmic-ray start an interpreter with torch for every mutant, which is most of a minute each on two cores. A fork
of one that has loaded everything takes a second. Needs a system with fork.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import importlib.util
import inspect
import io
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import NamedTuple, NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 240
"""A child that takes longer hangs, and is noticed."""


class Target(NamedTuple):
    """Functions of one module by qualified name, and their test files; without names all functions of the module."""

    module: str
    names: tuple[str, ...]
    tests: tuple[str, ...]


TARGETS = {
    "policy": Target("editguard.audit.policy", ("decide",), ("tests/audit/test_policy.py",)),
    "transaction": Target("editguard.audit.transaction", (), ("tests/audit/test_transaction.py",)),
    "verdict": Target(
        "editguard.reports.verdict.reasons",
        (),
        ("tests/reports/verdict/test_reasons.py", "tests/reports/verdict/test_digest.py"),
    ),
    "gate": Target("editguard.reports.gate.result", (), ("tests/reports/gate/test_result.py",)),
    "proposal": Target("editguard.audit.edit_result", ("Proposal.writable",), ("tests/audit/test_guard.py",)),
    "guard": Target(
        "editguard.audit.guard",
        tuple(
            f"GuardedEditor.{name}"
            for name in (
                "_run",
                "_proposal",
                "_is_to_rewrite",
                "_rewrite",
                "_compute",
                "_prepare_checks",
                "_prepare_states",
                "_assessment",
                "_check_reaches_answer",
                "propose",
                "propose_unguarded",
                "edit",
                "try_edit",
            )
        ),
        ("tests/audit/test_guard.py",),
    ),
    "sequence": Target(
        "editguard.audit.sequence",
        tuple(
            f"EditSequence.{name}"
            for name in ("edit", "commit", "close_after", "repeat_edit", "_advance", "retained", "undo")
        ),
        ("tests/audit/test_sequence.py",),
    ),
    "sequence records": Target(
        "editguard.audit.run.sequence_records",
        ("iter_sequence_records", "retention_rate"),
        ("tests/audit/test_sequence.py",),
    ),
    "chain": Target(
        "editguard.reports.verdict.edit_sequence",
        ("sequence_reasons", "_broken_chain", "_lost", "tally_sequence", "closes_sequence", "_closing", "_kept"),
        ("tests/reports/verdict/test_edit_sequence.py",),
    ),
    "accumulated": Target(
        "editguard.suites.checks.accumulated_drift",
        tuple(f"AccumulatedDrift.{name}" for name in ("measure", "known_bad", "_judge")),
        ("tests/audit/test_sequence.py",),
    ),
    "controls": Target(
        "editguard.audit.run.controls", ("run_control", "control_guard"), ("tests/audit/run/test_controls.py",)
    ),
}

EQUIVALENT = {
    "decide: _GRAVITY[consequence] > _GRAVITY[action] -> _GRAVITY[consequence] >= _GRAVITY[action]": (
        "of two findings of one gravity the later gives the same action as the earlier"
    ),
    "_prove_restored: 12 -> 13": "a message shows thirteen digits of a hash instead of twelve",
}
"""Survivors that no test can notice, by their description: why."""

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}


class Mutant(NamedTuple):
    """One changed function: its name, where the change is, what it is, and the code object."""

    name: str
    line: int
    change: str
    code: CodeType


def iter_changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the changed nodes that may stand in the place of `node`."""
    if isinstance(node, ast.expr):
        yield from _iter_expression_changes(node)
    elif isinstance(node, ast.If):
        for value in (True, False):
            yield ast.If(ast.Constant(value), node.body, node.orelse)
    elif isinstance(node, ast.Continue | ast.Raise | ast.AugAssign) or (
        isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
    ):
        yield ast.Pass()


def _iter_expression_changes(node: ast.expr) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            other = copy.deepcopy(node)
            other.ops[index] = _COMPARE[type(operator)]()
            yield other
    elif isinstance(node, ast.BoolOp):
        yield from _iter_bool_changes(node)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        yield ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)


def _iter_bool_changes(node: ast.BoolOp) -> Iterator[ast.expr]:
    other = copy.deepcopy(node)
    other.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    yield other
    for index in range(len(node.values)):
        less = copy.deepcopy(node)
        del less.values[index]
        yield less if len(less.values) > 1 else less.values[0]


class _Replace(ast.NodeTransformer):
    """Puts `new` in the place of the node with this number."""

    def __init__(self, number: int, new: ast.AST) -> None:
        self._left, self._new = number, new

    def visit(self, node: ast.AST) -> ast.AST:
        self._left -= 1
        return self._new if self._left == -1 else self.generic_visit(node)


def _iter_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield nodes in the order in which `_Replace` meets them."""
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _iter_nodes(child)


def iter_functions(tree: ast.AST, within: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the functions and methods of a module with their qualified names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from iter_functions(node, f"{within}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield f"{within}{node.name}", node


def _find_code(module: CodeType, name: str) -> CodeType:
    code = module
    for part in name.split("."):
        code = next(
            constant for constant in code.co_consts if isinstance(constant, CodeType) and constant.co_name == part
        )
    return code


def _find_source(module: str) -> Path:
    file = inspect.getsourcefile(importlib.import_module(module))
    assert file is not None
    return Path(file)


def iter_mutants(target: Target) -> Iterator[Mutant]:
    """Yield every mutant of a target's functions."""
    file = _find_source(target.module)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for name, function in iter_functions(tree):
        if target.names and name not in target.names:
            continue
        nodes = list(_iter_nodes(function))
        # Neither the signature nor the decorators run in the changed code.
        fixed = {
            id(inner)
            for part in (function.args, function.returns, *function.decorator_list)
            if part
            for inner in ast.walk(part)
        }
        # `zip(strict=True)` states an invariant; a program without it behaves the same.
        fixed |= {id(node.value) for node in nodes if isinstance(node, ast.keyword) and node.arg == "strict"}
        for number, node in enumerate(nodes):
            for new in () if id(node) in fixed else iter_changes(node):
                other = _Replace(number, ast.copy_location(copy.deepcopy(new), node)).visit(copy.deepcopy(function))
                code = _compile_changed(tree, function, other.body, str(file), name)
                yield Mutant(name, getattr(node, "lineno", 0), f"{_describe(node)} -> {_describe(new)}", code)


def _compile_changed(
    tree: ast.Module, function: ast.FunctionDef, body: list[ast.stmt], file: str, name: str
) -> CodeType:
    """Return the code of `function` with another body. `tree` is as before afterwards."""
    original = function.body
    function.body = body
    try:
        return _find_code(compile(ast.fix_missing_locations(copy.deepcopy(tree)), file, "exec"), name)
    finally:
        function.body = original


def _describe(node: ast.AST) -> str:
    if isinstance(node, ast.If):
        return f"if {ast.unparse(node.test)}"
    return " ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split())[:110]


def find_function(module: str, name: str) -> FunctionType:
    """Return the function that runs under a qualified name, out of its property or class method."""
    attribute = importlib.import_module(module)
    for part in name.split("."):
        attribute = inspect.getattr_static(attribute, part)
    attribute = getattr(attribute, "fget", None) or getattr(attribute, "__func__", None) or attribute
    attribute = inspect.unwrap(attribute)
    assert isinstance(attribute, FunctionType)
    return attribute


def list_missing(targets: Mapping[str, Target] = TARGETS) -> list[str]:
    """Return a sentence for each module, function, test file and equivalent mutant that does not exist any more."""
    missing: list[str] = []
    changes: set[str] = set()
    explained_functions = {change.partition(":")[0] for change in EQUIVALENT}
    for name, target in targets.items():
        missing += [
            f"{name}: the test file {path} does not exist." for path in target.tests if not (ROOT / path).is_file()
        ]
        if importlib.util.find_spec(target.module) is None:
            missing.append(f"{name}: the module {target.module} does not exist.")
            continue
        functions = dict(iter_functions(ast.parse(_find_source(target.module).read_text(encoding="utf-8"))))
        missing += [f"{name}: {target.module} has no function {own}." for own in target.names if own not in functions]
        explained = explained_functions & (set(target.names) or functions.keys())
        if explained:
            mutants = iter_mutants(target._replace(names=tuple(explained)))
            changes |= {f"{mutant.name}: {mutant.change}" for mutant in mutants}
    if targets is TARGETS:
        missing += [
            f"No mutant is '{change}', which EQUIVALENT explains." for change in EQUIVALENT if change not in changes
        ]
    return missing


class Forking:
    """A pytest plugin that runs the tests once as they are, and then for each mutant in a fork that has all fixtures made."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.count = 0
        self.survivors: list[Mutant] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take the place of pytest's own loop."""
        if not _tests_pass(session):
            sys.exit(
                f"The tests of {self._target.module} fail with the code as it is, so they notice nothing: mend them first."
            )
        for mutant in iter_mutants(self._target):
            self.count += 1
            if self._survives(mutant, session):
                self.survivors.append(mutant)
                print(f"{self.count}. {mutant.line} {mutant.name}: {mutant.change}", file=sys.__stderr__, flush=True)
        return True

    def _survives(self, mutant: Mutant, session: pytest.Session) -> bool:
        function = find_function(self._target.module, mutant.name)
        code = function.__code__
        # Code that does not fit raises here, and is not taken for a mutant that was noticed.
        function.__code__ = mutant.code
        try:
            child = os.fork()
            if child == 0:
                _end_with(session)
        finally:
            function.__code__ = code
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status) == 0


def _end_with(session: pytest.Session) -> NoReturn:
    """End the child: with 0 where the tests pass."""
    signal.alarm(LIMIT_S)
    end = 1
    with contextlib.suppress(BaseException):
        end = 0 if _tests_pass(session) else 1
    os._exit(end)


def _tests_pass(session: pytest.Session) -> bool:
    """Run the tests up to the first that fails; what modules and the session share stays ready for the next time."""
    items = session.items
    for item, following in zip(items, [*items[1:], items[0]], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return False
    return True


def main() -> int:
    """Run the named targets, print their survivors, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*TARGETS, []], metavar="NAME")
    names = parser.parse_args().names or list(TARGETS)
    os.chdir(ROOT)
    if missing := list_missing():
        print(*missing, sep="\n", file=sys.stderr)
        return 2
    return 1 if sum(run(name) for name in names) else 0


def run(name: str) -> int:
    """Run one target, print its survivors, and return how many of them are not explained."""
    forking, silence = Forking(TARGETS[name]), io.StringIO()
    arguments = ["-q", "-s", "-p", "no:cacheprovider", "-m", "not slow and not real and not gpu", *TARGETS[name].tests]
    # What this script had imported before pytest keeps its plain assertions.
    arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        pytest.main([*arguments, "--tb=no", "--no-header"], plugins=[forking])
    unexplained = 0
    for mutant in forking.survivors:
        is_equivalent = f"{mutant.name}: {mutant.change}" in EQUIVALENT
        unexplained += not is_equivalent
        print(
            f"{'equivalent' if is_equivalent else 'SURVIVED'} {name}:{mutant.line} {mutant.name}: {mutant.change}",
            flush=True,
        )
    print(
        f"{name}: {forking.count} mutants, {forking.count - len(forking.survivors)} noticed, {len(forking.survivors)} left",
        flush=True,
    )
    return unexplained + (forking.count == 0)


if __name__ == "__main__":
    sys.exit(main())
