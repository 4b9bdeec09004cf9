"""Policy files."""

from __future__ import annotations

__all__ = ["TABLE", "SEEDS"]

TABLE = b'editor = "rome"\nmax_relative_update = 0.75\nallow_refused = true\n[rules]\nfirst-token = "refuse"\n'
SEEDS = {
    "policy.toml": [TABLE, b'rules = { denominator = "allow" }\nmin_efficacy = 0.5 # half\ncontrols = false\n'],
    "pyproject.toml": [
        b"[tool.editguard]\n" + TABLE.replace(b"[rules]", b"[tool.editguard.rules]"),
        b"[tool]\nother = 1\n",
    ],
}
