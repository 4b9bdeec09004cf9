"""Findings lead to decisions: the gravest wins, what is unknown or was not measured is refused, TOML faults are named."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from editguard.audit.policy import Action, Policy, decide, load_policy
from editguard.probes.errors import PolicyError
from editguard.probes.probe import Finding, Level
from hypothesis import given
from hypothesis import strategies as st

from ..helpers.policy_bounds import NUMBERS_WITHOUT_BOUND, legal_range, number_fields, stricter_side

BUILTIN = ("crowded-key", "denominator", "first-token", "key-shift", "sink-key", "well-formed")
GRAVITY = (Action.ALLOW, Action.REWRITE, Action.REFUSE)


def make_finding(probe: str = "denominator", level: Level = Level.RISK) -> Finding:
    return Finding(probe=probe, level=level, message=f"{probe} saw something")


TABLE = [
    ([make_finding(level=Level.OK)], Action.ALLOW),
    ([make_finding(level=Level.NOTICE)], Action.ALLOW),
    ([make_finding("first-token")], Action.REWRITE),
    ([make_finding("denominator")], Action.REWRITE),
    ([make_finding("key-shift")], Action.REWRITE),
    ([make_finding("sink-key")], Action.REWRITE),
    ([make_finding("well-formed")], Action.REFUSE),
    ([make_finding("somebody-elses")], Action.REFUSE),
    ([make_finding("somebody-elses", Level.OK)], Action.ALLOW),
    ([make_finding("denominator", Level.ERROR)], Action.REFUSE),
    ([make_finding("somebody-elses", Level.ERROR)], Action.REFUSE),
    ([make_finding("denominator"), make_finding("well-formed")], Action.REFUSE),
    ([make_finding("well-formed"), make_finding("denominator")], Action.REFUSE),
    ([make_finding("denominator", Level.ERROR), make_finding("first-token")], Action.REFUSE),
    ([make_finding(level=Level.OK), make_finding("sink-key")], Action.REWRITE),
    ([], Action.REFUSE),
]


def test_decide_allowed_finding_gives_no_reason() -> None:
    policy = Policy.model_validate({"rules": {"sink-key": "allow"}})
    assert decide(policy, [make_finding("sink-key"), make_finding("denominator")]).reasons == (
        "denominator: denominator saw something",
    )
    assert decide(policy, [make_finding("sink-key")]).reasons == ()


@pytest.mark.parametrize(("findings", "action"), TABLE)
def test_decide_findings_lead_to_the_action(findings: list[Finding], action: Action) -> None:
    decision = decide(Policy(), findings)
    assert decision.action is action
    assert decision.editor == {Action.ALLOW: "local", Action.REWRITE: "everywhere", Action.REFUSE: None}[action]
    assert bool(decision.reasons) is (action is not Action.ALLOW)


def test_decide_requested_editor_makes_only_allowed_edits() -> None:
    assert decide(Policy(), [make_finding(level=Level.OK)], "c-rome").editor == "c-rome"
    assert decide(Policy(), [make_finding()], "c-rome").editor == "everywhere"


def test_decide_rewriting_editor_requested_is_allowed() -> None:
    decision = decide(Policy(), [make_finding()], "everywhere")
    assert (decision.action, decision.editor) == (Action.ALLOW, "everywhere")
    assert decide(Policy(), [make_finding("well-formed")], "everywhere").action is Action.REFUSE
    assert decide(Policy(), [make_finding(level=Level.ERROR)], "everywhere").action is Action.REFUSE


def test_decide_crowded_key_is_shown_and_not_acted_on() -> None:
    decision = decide(Policy(), [make_finding("crowded-key")])
    assert (decision.action, decision.editor, decision.reasons) == (Action.ALLOW, "local", ())
    policy = Policy.model_validate({"rules": {"crowded-key": "refuse"}})
    assert decide(policy, [make_finding("crowded-key")]).action is Action.REFUSE
    # What could not be measured is refused by any policy.
    assert decide(Policy(), [make_finding("crowded-key", Level.ERROR)]).action is Action.REFUSE


def test_decide_each_counting_finding_is_a_reason() -> None:
    decision = decide(
        Policy(), [make_finding("denominator"), make_finding("key-shift", Level.OK), make_finding("well-formed")]
    )
    # The one that decided comes first.
    assert decision.reasons == ("well-formed: well-formed saw something", "denominator: denominator saw something")


rules = st.sampled_from(["allow", "rewrite", "refuse"])
policies = st.builds(Policy, rules=st.dictionaries(st.sampled_from(BUILTIN), rules), unknown_probe=rules)
findings = st.lists(st.builds(make_finding, st.sampled_from([*BUILTIN, "plugin"]), st.sampled_from(Level)), max_size=6)
editors = st.sampled_from([None, "rome", "c-rome", "prefixed"])


@given(policies, findings, editors)
def test_decide_error_is_refused_under_any_policy(policy: Policy, findings: list[Finding], editor: str | None) -> None:
    decision = decide(policy, [*findings, make_finding(level=Level.ERROR)], editor)
    assert decision.action is Action.REFUSE
    assert decision.editor is None


@given(policies, findings, editors)
def test_decide_more_findings_are_never_milder(policy: Policy, findings: list[Finding], editor: str | None) -> None:
    for index in range(1, len(findings)):
        fewer, more = decide(policy, findings[:index], editor).action, decide(policy, findings, editor).action
        assert GRAVITY.index(more) >= GRAVITY.index(fewer)


@given(policies, findings.filter(bool))
def test_decide_gravest_action_wins_in_any_order(policy: Policy, findings: list[Finding]) -> None:
    actions = [decide(policy, [finding]).action for finding in findings]
    assert decide(policy, findings).action is max(actions, key=GRAVITY.index)
    assert decide(policy, findings[::-1]).action is decide(policy, findings).action


@given(st.text().filter(lambda name: name not in BUILTIN), findings)
def test_decide_unknown_probe_is_refused_by_default(probe: str, findings: list[Finding]) -> None:
    assert decide(Policy(), [*findings, make_finding(probe)]).action is Action.REFUSE


# ---------------------------------------------------------------------------------------------------------------- TOML


def write_policy(folder: Path, text: str, name: str = "policy.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_load_policy_file_changes_only_what_it_names(tmp_path: Path) -> None:
    policy = load_policy(write_policy(tmp_path, 'max_relative_update = 0.5\n[rules]\ndenominator = "refuse"\n'))
    assert policy.max_relative_update == 0.5
    assert policy.rules == Policy().rules | {"denominator": "refuse"}
    assert policy == Policy(max_relative_update=0.5, rules={"denominator": "refuse"})
    assert decide(policy, [make_finding("first-token")]).action is Action.REWRITE
    assert decide(policy, [make_finding("plugin")]).action is Action.REFUSE


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("max_relative_updat = 0.5", "unknown key 'max_relative_updat' (did you mean 'max_relative_update'?)"),
        ("zzz = 1", "unknown key 'zzz' (the keys are rules, unknown_probe"),
        ("max_relative_update = -1", "max_relative_update = -1, which is not allowed"),
        ("max_relative_update = nan", "max_relative_update = nan, which is not allowed"),
        ("max_perplexity_ratio = inf", "max_perplexity_ratio = inf, which is not allowed"),
        ("collapse_ratio = 1.0", "collapse_ratio = 1.0, which is not allowed"),
        ("min_efficacy = 1.5", "min_efficacy = 1.5, which is not allowed"),
        ('allow_refused = "perhaps"', "allow_refused = 'perhaps', which is not allowed"),
        ('[rules]\ndenominator = "ignore"', "rules.denominator = 'ignore', which is not allowed"),
        ('unknown_probe = "skip"', "unknown_probe = 'skip', which is not allowed"),
        ("rules = 3", "rules = 3, which is not allowed"),
        ("zzz = 1\nmin_efficacy = 2", "; and it has an unknown key 'zzz'"),
        ("this is no toml", "is not TOML"),
        ("a = 1\na = 2", "is not TOML"),
    ],
)
def test_load_policy_wrong_file_is_one_sentence(tmp_path: Path, text: str, fragment: str) -> None:
    path = write_policy(tmp_path, text)
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    message = str(caught.value)
    assert fragment in message
    assert str(path) in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_load_policy_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(path)
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy(tmp_path)
    path.write_bytes(b"a = '\xff\xfe'")
    with pytest.raises(PolicyError, match="is not TOML"):
        load_policy(path)


def test_load_policy_without_file_reads_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_policy(None) == Policy()
    write_policy(tmp_path, "[tool.other]\na = 1\n", "pyproject.toml")
    assert load_policy(None) == Policy()
    write_policy(tmp_path, "[tool.editguard]\nmin_locality = 0.9\n", "pyproject.toml")
    assert load_policy(None) == Policy(min_locality=0.9)
    # A file that is named by hand counts instead of it.
    assert load_policy(write_policy(tmp_path, "allow_refused = true\n")) == Policy(allow_refused=True)
    write_policy(tmp_path, "[tool.editguard]\nmin_localty = 0.9\n", "pyproject.toml")
    with pytest.raises(PolicyError, match="did you mean 'min_locality'"):
        load_policy(None)


# --------------------------------------------------------------------------------------------- bounds and their sides


def test_policy_each_bound_names_its_stricter_side() -> None:
    """A bound that does not would be kept as strict as it is for the controls, and void audits."""
    sides = {name: stricter_side(name) for name in number_fields() if name not in NUMBERS_WITHOUT_BOUND}
    expected = {name: "lower" if name.startswith("max_") or name == "near_tie" else "higher" for name in sides}
    assert sides == expected
    assert len(sides) > 15
    assert {stricter_side(name) for name in NUMBERS_WITHOUT_BOUND} == {None}
    # Numbers in any other dress would be missed here.
    others = set(Policy.model_fields) - {*number_fields(), "tries"}
    kinds = {str(Policy.model_fields[name].annotation) for name in others}
    assert not any("float" in kind or "int" in kind for kind in kinds)


@pytest.mark.parametrize("name", [name for name in number_fields() if name not in NUMBERS_WITHOUT_BOUND])
def test_policy_for_controls_has_the_wider_bounds(name: str) -> None:
    least, most = legal_range(name)
    strictest, widest = (least, most) if stricter_side(name) == "lower" else (most, least)
    usual = getattr(Policy(), name)
    for value, wider in ((strictest, usual), (widest, widest), (usual, usual)):
        policy = Policy.model_validate({name: value})
        assert getattr(policy, name) == value
        assert policy.at_least_as_wide_as_default() == Policy().model_copy(update={name: wider})


def test_policy_for_controls_keeps_what_is_not_a_bound() -> None:
    policy = Policy(
        rules={"sink-key": "refuse"},
        unknown_probe="allow",
        editor="c-rome",
        rewrite_editor="rome",
        over_bound="refuse",
        collapse_ratio=3.0,
        allow_refused=True,
        controls=False,
        require_served=True,
    )
    assert policy.at_least_as_wide_as_default() == policy.model_copy(update={"require_served": False})


def test_build_limits_all_come_from_the_policy() -> None:
    from editguard.audit.setup import build_limits

    widest = {
        name: legal_range(name)[stricter_side(name) == "lower"]
        for name in number_fields()
        if name not in NUMBERS_WITHOUT_BOUND
    }
    strictest = {name: legal_range(name)[stricter_side(name) != "lower"] for name in widest}
    wide_limits, strict_limits = (asdict(build_limits(Policy.model_validate(table))) for table in (widest, strictest))
    same = {name for name, value in wide_limits.items() if strict_limits[name] == value and name != "served"}
    assert same == set()
    assert asdict(build_limits(Policy(require_served=True)))["served"] is True


def test_load_policy_reads_a_pyproject_by_path(tmp_path: Path) -> None:
    path = write_policy(tmp_path, "[tool.editguard]\nmin_locality = 0.9\n", "pyproject.toml")
    assert load_policy(path) == Policy(min_locality=0.9)


def test_load_policy_value_in_place_of_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="which is not allowed"):
        load_policy(write_policy(tmp_path, "[tool]\neditguard = 3\n", "pyproject.toml"))
    for text in ("tool = 3\n", "[tool.editgaurd]\nmin_locality = 0.9\n"):
        with pytest.raises(PolicyError, match=r"no table \[tool.editguard\]"):
            load_policy(write_policy(tmp_path, text, "pyproject.toml"))


def test_policy_default_rules_name_every_builtin_probe() -> None:
    from editguard.probes.probe import PROBES

    assert set(BUILTIN) <= set(Policy().rules)
    assert set(BUILTIN) == {name for name, probe in PROBES if probe.__module__.startswith("editguard.probes.builtin.")}


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("a = " + "[" * 5000, "nested too deep"),
        ("a = " + "9" * 5000, "is not TOML"),
        ('"\\u001b[2J" = 1', "[U+001B]"),
        ("x" * 5000 + " = 1", "an unknown key 'xxx"),
        ("".join(f"key{number} = 1\n" for number in range(1000)), "; and it has 990 more faults."),
        ("#" * 2**20 + "\n", "more than the 1 MiB that are read"),
    ],
)
def test_load_policy_hostile_file_is_one_short_sentence(tmp_path: Path, text: str, fragment: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(write_policy(tmp_path, text))
    message = str(caught.value)
    assert fragment in message
    assert message.isprintable()
    assert len(message) < 4000


@pytest.mark.parametrize(
    "line", ["max_leaks = true", 'max_leaks = "1"', 'max_flips = "0.5"', 'controls = "no"', "allow_refused = 1"]
)
def test_policy_value_of_another_type_is_refused(line: str, tmp_path: Path) -> None:
    """``true`` is no share: taken for 1, it would let every prompt leak."""
    path = tmp_path / "policy.toml"
    path.write_text(line)
    with pytest.raises(PolicyError, match="not allowed"):
        load_policy(path)
