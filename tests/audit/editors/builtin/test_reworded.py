"""The settings of `reworded`: those of `prefixed`, with rewordings and essences, and the same engine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.audit.editors.builtin.prefixed import Prefixed
from editguard.audit.editors.builtin.reworded import Reworded
from editguard.audit.editors.value import Engine, ValueSettings


@pytest.mark.parametrize("engine", Engine)
def test_reworded_settings_add_rewordings_and_essences_to_prefixed(engine: Engine) -> None:
    general = ValueSettings(engine=engine)
    prefixed, reworded = Prefixed().settings(general), Reworded().settings(general)
    assert (prefixed.rewordings, prefixed.essences) == (0, 0)
    assert reworded.rewordings > 0
    assert reworded.essences > 0
    assert replace(reworded, rewordings=0, essences=0) == prefixed
    assert reworded.engine is engine
