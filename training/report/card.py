"""The model card: what a run is, for whom, how good and where not, in the Hugging Face hub's format.

Mitchell et al., "Model Cards for Model Reporting" (arXiv 1810.03993), is where its sections are from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment

from detector.errors import UsageError
from detector.files import atomic_write, read_json, write_json
from training.evaluation.scores import ScoreTable
from training.models.checkpoint import BEST
from training.options import without_places
from training.report.summary import ANSWERS

CARD = "MODEL_CARD.md"
STRENGTHS = ("label_noise_frac", "input_noise_std")  # of faults, which have a banner of their own
REPORTED = {
    "auc": "ROC AUC",
    "average_precision": "Average precision",
    "eer": "Equal error rate",
    "accuracy": "Accuracy",
    "fpr": "Real photos called fake",
    "recall": "Fakes found",
    "brier": "Brier score",
    "ece_raw": "Calibration error (ECE) before calibration",
    "ece": "Calibration error (ECE) after",
    "smooth_ece": "Smooth calibration error after",
    "brier_skill": "Brier skill after (0: every photo gets the same probability)",
}
_PAGE = """\
---
{{ data }}
---

# Deepfake-image detector: {{ m.arguments.model }}

{% if m.faults %}
> **Not for use.** Faults were injected into its training on purpose: {{ faults }}.

{% endif %}
{% for warning in m.warnings %}
> **Warning** (`{{ warning.code }}`): {{ warning.message }}.

{% endfor %}
Given a face photo, it says how probable it is that the photo is synthetic or manipulated.
`{{ m.arguments.model }}`, {{ "{:,}".format(m.parameters) }} parameters, {{ m.arguments.size }} × {{ m.arguments.size }} px;
trained and calibrated with Unmask.

## Uses

Use it to flag photos that a person then looks at. Do not let it decide about people by itself, do not use it as evidence, and
do not use it on photos unlike those it was trained on: a detector knows the kinds of fakes that it has seen.

## Training data

`{{ data_name }}`, fingerprint `{{ m.fingerprint[:16] }}` (SHA-256 over names and contents).

| part | real | fake |
|---|---|---|
{% for part, n in m.counts.items() %}
| {{ part }} | {{ n.real }} | {{ n.fake }} |
{% endfor %}

{{ m.split }}
{% if m.pseudo_fakes %}

{{ m.pseudo_fakes }}
{% endif %}

## How it does

On the {{ m.validation.n }} validation photos, with 95 % bootstrap intervals; a photo is called fake from a calibrated
probability of {{ "%.3g" | format(m.threshold) }} on.

| | value | 95 % interval |
|---|---|---|
{% for label, value in rows %}
| {{ label }} | {{ "%.3f" | format(value.value) }} | {{ "%.3f" | format(value.low) }}–{{ "%.3f" | format(value.high) }} |
{% endfor %}

{% if m.abstention %}
It says Uncertain for a calibrated probability from {{ "%.3g" | format(m.uncertain[0]) }} to below
{{ "%.3g" | format(m.uncertain[1]) }}. The ends were chosen on held-out photos: of photos like these, at most
{{ "%g" | format(100 * m.band_choice.target_fpr) }} % of the real ones are to be called Fake and at most
{{ "%g" | format(100 * m.band_choice.target_fnr) }} % of the fake ones Real, each with a confidence of
{{ "%g" | format(100 * m.band_choice.confidence) }} %. On the validation photos, with 95 % Wilson intervals:

| | value | 95 % interval |
|---|---|---|
{% for label, value in answers %}
| {{ label }} | {{ "%.3f" | format(value.value) }} | {{ "%.3f" | format(value.low) }}–{{ "%.3f" | format(value.high) }} |
{% endfor %}

{% endif %}
Calibration: {{ m.calibration.method }}, fitted on {{ m.calibration.n }} photos. Why this method:
{{ m.calibration.why }}.

## Limits

- Intervals say how certain these numbers are for photos like these. They say nothing about other cameras, generators or
  editing tools.
{% if m.robustness %}
- {{ m.robustness.photos.real }} real and {{ m.robustness.photos.fake }} fake validation photos were changed as editors,
  messengers and screens do: {{ m.robustness.sentences | join(" ") or "none changes more than a tenth of the verdicts." }}
{% else %}
- Heavy compression, down-scaling and screenshots remove what it looks for; `unmask evaluate --robustness`
  measures by how much.
{% endif %}
- Whether it errs more for some groups of people is unknown unless `evaluate --group-by` was run with labels for them.

## How it was made

{% if m.initial_weights %}
It started from these weights: {{ m.initial_weights }}.

{% endif %}
{% for key, value in arguments.items() %}
- {{ key }}: {{ value }}
{% endfor %}

{% for name, version in m.libraries.items() %}{{ name }} {{ version }}{{ "" if loop.last else ", " }}{% endfor %}.
"""


def write_card(directory: Path, metrics: dict[str, Any]) -> Path:
    """Write a run's `MODEL_CARD.md` from what its `metrics.json` holds; returns its path. It names no local place."""
    arguments = without_places(metrics["arguments"])
    rows = [(label, metrics["validation"][key]) for key, label in REPORTED.items()]
    answered = metrics.get("abstention") or {}
    # Markdown, not HTML: escaping would put &amp; into names.
    page = Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False).from_string(_PAGE)  # noqa: S701
    text = page.render(
        data=_metadata(metrics, arguments["data"]).to_yaml(),
        data_name=arguments["data"],
        m=metrics,
        faults=", ".join(f"{k} {v}" for k, v in (metrics["faults"] or {}).items()),
        rows=rows,
        answers=[(label, answered[key]) for key, label in ANSWERS.items() if answered.get(key)],
        arguments={k: v for k, v in arguments.items() if v not in (None, [], False) and k not in STRENGTHS},
    )
    path = directory / CARD
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def record_robustness(checkpoint: Path, evaluation: dict[str, Any]) -> None:
    """Write the robustness of an evaluation into the `metrics.json` and the card of the run that `checkpoint` is the best of.

    Raises `UsageError` when it is not, or when other photos than the run's validation photos were evaluated, `FileError` when
    there is no run.
    """
    run = checkpoint.parent
    metrics = read_json(run / "metrics.json", hint="a finished `unmask train` writes it")
    own = len(ScoreTable.load(run).of("validation").names)
    if checkpoint.name != BEST or evaluation["part"] != "validation" or evaluation["validation"]["n"] != own:
        raise UsageError(f"--record: a run's card tells of its {BEST} on its own validation photos; leave it out for others")
    write_json(run / "metrics.json", metrics | {"robustness": evaluation["robustness"]})
    write_card(run, metrics | {"robustness": evaluation["robustness"]})


def _metadata(metrics: dict[str, Any], data: str) -> ModelCardData:
    """The head of the card, which the hub indexes."""
    measured = {"roc_auc": "auc", "accuracy": "accuracy", "brier_score": "brier", "expected_calibration_error": "ece"}
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=data,
            dataset_name=data,
            dataset_split="validation",
            metric_type=name,
            metric_value=round(float(metrics["validation"][key]["value"]), 4),
        )
        for name, key in measured.items()
    ]
    return ModelCardData(
        model_name=f"unmask-{metrics['arguments']['model']}".replace("/", "-"),
        library_name="unmask",
        pipeline_tag="image-classification",
        tags=["deepfake-detection", "calibrated", *(["faults-injected"] if metrics["faults"] else [])],
        metrics=list(measured),
        eval_results=results,
    )
