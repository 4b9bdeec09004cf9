"""Would the tests notice if the guard's decision code said something else? Its functions are changed one place at a time.

    python benchmarks/guard_mutants.py [NAME ...]

NAME picks targets of `TARGETS`; none is all. Each mutant is one change of one operator, constant, condition or statement of a
function that decides. A forked child takes the changed code on and runs the target's test files; a child whose tests pass
let the mutant survive. What survives is printed with its line; docs/research/reliability.md explains each. Exit code 1 where one survived
that is not in `EQUIVALENT`.

mutmut and cosmic-ray start an interpreter with torch for every mutant, which is most of a minute each on two cores; a fork of one
that has loaded everything takes a second. Needs a system with fork.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import inspect
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import NamedTuple, NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 240
"""A child that takes longer hangs, and is noticed."""


class Target(NamedTuple):
    """Functions of one module, by qualified name, and the test files that hold them; no names are all functions."""

    module: str
    names: tuple[str, ...]
    tests: tuple[str, ...]


TARGETS = {
    "policy": Target("editguard.audit.policy", ("decide",), ("tests/audit/test_policy.py",)),
    "transaction": Target("editguard.audit.transaction", (), ("tests/audit/test_transaction.py",)),
    "verdict": Target(
        "editguard.reports.verdict.reasons", (), ("tests/reports/test_verdict.py", "tests/reports/test_digest.py")
    ),
    "closings": Target("editguard.reports.gate.result", (), ("tests/reports/test_closings.py",)),
    "guard": Target(
        "editguard.audit.guard",
        (
            "Proposal.writable",
            *(
                f"GuardedEditor.{name}"
                for name in (
                    "_run",
                    "_proposal",
                    "_to_rewrite",
                    "_rewritten",
                    "_computed",
                    "_prepared",
                    "_assessment",
                    "_reaches_the_answer",
                    "propose",
                    "force",
                    "edit",
                    "test",
                )
            ),
        ),
        ("tests/audit/test_guard.py",),
    ),
    "sequence": Target(
        "editguard.audit.sequence",
        (
            "one_after_the_other",
            "retention",
            *(f"EditSequence.{name}" for name in ("edit", "_keep", "_close", "_again", "_move_on", "retained", "undo")),
        ),
        ("tests/audit/test_sequence.py",),
    ),
    "chain": Target(
        "editguard.reports.verdict.edit_sequence",
        ("sequence_reasons", "_broken_chain", "_lost", "sequence_of", "closes", "_closing", "_kept"),
        ("tests/reports/test_sequence.py",),
    ),
    "accumulated": Target(
        "editguard.suites.checks.accumulated_drift",
        tuple(f"AccumulatedDrift.{name}" for name in ("measure", "known_bad", "_judge")),
        ("tests/audit/test_sequence.py",),
    ),
    "controls": Target(
        "editguard.audit.run.controls", ("run_control", "control_guard"), ("tests/audit/test_controls.py",)
    ),
}

EQUIVALENT = {
    "decide: _GRAVITY[found] > _GRAVITY[action] -> _GRAVITY[found] >= _GRAVITY[action]": (
        "of two findings of one gravity the later gives the same action as the earlier"
    ),
    "GuardedEditor._prepared: if not made -> if False": "of no edit nothing is prepared either way, at the price of time",
    "Transaction._undo: 12 -> 13": "a message shows thirteen digits of a hash instead of twelve",
    "EditSequence.undo: 12 -> 13": "the same",
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


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in the place of `node`."""
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            other = copy.deepcopy(node)
            other.ops[index] = _COMPARE[type(operator)]()
            yield other
    elif isinstance(node, ast.BoolOp):
        other = copy.deepcopy(node)
        other.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield other
        for index in range(len(node.values)):
            less = copy.deepcopy(node)
            del less.values[index]
            yield less if len(less.values) > 1 else less.values[0]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        yield ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.If):
        for value in (True, False):
            yield ast.If(ast.Constant(value), node.body, node.orelse)
    elif isinstance(node, ast.Continue | ast.Raise | ast.AugAssign) or (
        isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
    ):
        yield ast.Pass()


class _Replace(ast.NodeTransformer):
    """Puts `new` in the place of the node with this number."""

    def __init__(self, number: int, new: ast.AST) -> None:
        self._left, self._new = number, new

    def visit(self, node: ast.AST) -> ast.AST:
        self._left -= 1
        return self._new if self._left == -1 else self.generic_visit(node)


def _numbered(node: ast.AST) -> Iterator[ast.AST]:
    """Yield nodes in the order in which `_Replace` meets them."""
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _numbered(child)


def functions(tree: ast.AST, within: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the functions and methods of a module with their qualified names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{within}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield f"{within}{node.name}", node


def _code(module: CodeType, name: str) -> CodeType:
    found = module
    for part in name.split("."):
        found = next(one for one in found.co_consts if isinstance(one, CodeType) and one.co_name == part)
    return found


def mutants(target: Target) -> Iterator[Mutant]:
    """Yield every mutant of a target's functions."""
    module = importlib.import_module(target.module)
    file = inspect.getsourcefile(module)
    assert file is not None
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    for name, function in functions(tree):
        if target.names and name not in target.names:
            continue
        nodes = list(_numbered(function))
        # Neither what a signature says nor the decorators run in the changed code.
        fixed = {
            id(inner)
            for part in (function.args, function.returns, *function.decorator_list)
            if part
            for inner in ast.walk(part)
        }
        # `zip(strict=True)` states what holds, and nothing can be told from a program that does not state it.
        fixed |= {id(node.value) for node in nodes if isinstance(node, ast.keyword) and node.arg == "strict"}
        for number, node in enumerate(nodes):
            for new in () if id(node) in fixed else changed(node):
                yield _mutant(tree, name, function, number, node, new, file)


def _mutant(
    tree: ast.Module, name: str, function: ast.FunctionDef, number: int, node: ast.AST, new: ast.AST, file: str
) -> Mutant:
    # `tree` is put right again below: only the function's body is another for the moment.
    body = function.body
    other = _Replace(number, ast.copy_location(copy.deepcopy(new), node)).visit(copy.deepcopy(function))
    function.body = other.body
    try:
        code = _code(compile(ast.fix_missing_locations(copy.deepcopy(tree)), file, "exec"), name)
    finally:
        function.body = body
    return Mutant(name, getattr(node, "lineno", 0), f"{_said(node)} -> {_said(new)}", code)


def _said(node: ast.AST) -> str:
    if isinstance(node, ast.If):
        return f"if {ast.unparse(node.test)}"
    return " ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split())[:110]


def live(module: str, name: str) -> FunctionType:
    """Return the function that runs under a qualified name, out of its property or class method."""
    found = importlib.import_module(module)
    for part in name.split("."):
        found = inspect.getattr_static(found, part)
    found = getattr(found, "fget", None) or getattr(found, "__func__", None) or found
    found = inspect.unwrap(found)
    assert isinstance(found, FunctionType)
    return found


class Forking:
    """A pytest plugin that runs the tests once as they are, and then for each mutant in a fork that has all fixtures made."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.made = 0
        self.left: list[Mutant] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Take the place of pytest's own loop."""
        if not _pass(session):
            sys.exit(
                f"The tests of {self._target.module} fail with the code as it is, so they notice nothing: mend them first."
            )
        for mutant in mutants(self._target):
            self.made += 1
            if self._survives(mutant, session):
                self.left.append(mutant)
                print(f"{self.made}. {mutant.line} {mutant.name}: {mutant.change}", file=sys.__stderr__, flush=True)
        return True

    def _survives(self, mutant: Mutant, session: pytest.Session) -> bool:
        function = live(self._target.module, mutant.name)
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
        end = 0 if _pass(session) else 1
    os._exit(end)


def _pass(session: pytest.Session) -> bool:
    """Run the tests up to the first that fails; what modules and the session share stays ready for the next time."""
    items = session.items
    for item, following in zip(items, [*items[1:], items[0]], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return False
    return True


def main() -> int:
    """Run the targets that were named, print what survived, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*TARGETS, []], metavar="NAME")
    asked = parser.parse_args().names or list(TARGETS)
    os.chdir(ROOT)
    return 1 if sum(run(name) for name in asked) else 0


def run(name: str) -> int:
    """Run one target, print what survived, and return how many of those nobody has explained."""
    forking, silence = Forking(TARGETS[name]), io.StringIO()
    arguments = ["-q", "-s", "-p", "no:cacheprovider", "-m", "not slow and not real and not gpu", *TARGETS[name].tests]
    # What this script had imported before pytest keeps its plain assertions.
    arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        pytest.main([*arguments, "--tb=no", "--no-header"], plugins=[forking])
    bad = 0
    for one in forking.left:
        known = f"{one.name}: {one.change}" in EQUIVALENT
        bad += not known
        print(f"{'equivalent' if known else 'SURVIVED'} {name}:{one.line} {one.name}: {one.change}", flush=True)
    print(
        f"{name}: {forking.made} mutants, {forking.made - len(forking.left)} noticed, {len(forking.left)} left",
        flush=True,
    )
    return bad + (forking.made == 0)


if __name__ == "__main__":
    sys.exit(main())
