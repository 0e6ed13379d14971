#!/usr/bin/env bash
# Every stage once: photos in, a calibrated verdict out of a real TorchServe. `make demo` calls this.
# DATA: labelled photos (the drawn set is made when it is demo/data). RUN, ARTIFACTS: where the results go.
# FIT: options for training, in place of those below.
set -euo pipefail
cd "$(dirname "$0")"
: "${PY:=.venv/bin/python}" "${DATA:=demo/data}" "${RUN:=run}" "${ARTIFACTS:=artifacts}" "${STATE:=demo/state}"
# ImageNet weights from an installed package, fine-tuned in a few minutes on two cores. A fifth of the training photos is left
# aside for the calibration. The cosine schedule keeps its last epoch, so few photos are needed to follow it.
fit=(--model efficientnet_lite0 --multiscale --augment crop --schedule cosine --lr 6e-4 --batch-size 16
  --tune-fraction 0.02 --calibrate-fraction 0.2 --calibration platt)
drawn=(--size 128 --epochs 2)
# Squares of 128 px at the photo's own resolution show the finest detail and take a quarter of the time; the whole photo is scored.
photographed=(--size 256 --crop 128 --mixup 0.3 --epochs 12)

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
stop() { "$PY" -m unmask serve stop --state "$STATE" >/dev/null 2>&1 || true; }
trap stop EXIT

if [ "$DATA" = demo/data ]; then
  say "1/5 Drawing the demo set: portraits made with code, photographed or forged"
  "$PY" -m unmask demo-data "$DATA" --count 3000 --size 128
  fit+=("${drawn[@]}")
else
  say "1/5 Photos: $DATA"
  fit+=("${photographed[@]}")
fi

say "2/5 Training and calibrating: the longest stage"
# A run of yours is not written over: only one that the demo made.
if [ -e "$RUN/metrics.json" ] && [ ! -e "$RUN/.demo" ]; then
  echo "error: $RUN/ holds a run that the demo did not make; name another folder with RUN=DIR" >&2
  exit 1
fi
mkdir -p "$RUN" && touch "$RUN/.demo"
# shellcheck disable=SC2206  # FIT is a list of options
[ -z "${FIT:-}" ] || fit=($FIT)
"$PY" -m unmask train --data "$DATA" --out "$RUN" --overwrite "${fit[@]}"

say "3/5 Exporting, and proving ONNX and TorchScript equal to the checkpoint"
"$PY" -m unmask export --run "$RUN" --out "$ARTIFACTS"
"$PY" -m unmask verify "$ARTIFACTS"

say "4/5 Starting TorchServe"
"$PY" -m unmask serve start --artifacts "$ARTIFACTS" --state "$STATE" --background

say "5/5 Scoring photos over REST, then the same over gRPC"
# The last by name of each class: of the Validation folder, where there is one.
mapfile -t photos < <(for label in real fake; do find "$DATA" -type f -ipath "*/$label/*" | sort | tail -n 3; done)
"$PY" -m unmask predict --state "$STATE" "${photos[@]}"
"$PY" -m unmask predict --state "$STATE" --grpc "${photos[@]}"
"$PY" -m unmask serve stop --state "$STATE"
trap - EXIT

say "Done"
"$PY" - "$RUN/metrics.json" <<'PYTHON'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    metrics = json.load(file)
on = metrics["validation"]
print(f"detector   AUC {on['auc']['value']:.3f} (95 % interval {on['auc']['low']:.3f} to {on['auc']['high']:.3f}), "
      f"calibration error (ECE) {on['ece']['value']:.3f}, on {on['n']} photos that were used for nothing else")
for warning in metrics.get("warnings", []):
    print(f"warning    {warning['message']}")
PYTHON
printf 'report     %s/report/index.html\nartifacts  %s/\nserve it   make serve ARTIFACTS=%s\n' "$RUN" "$ARTIFACTS" "$ARTIFACTS"
