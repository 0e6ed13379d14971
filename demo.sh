#!/usr/bin/env bash
# Every stage once: photos in, a calibrated verdict out of a real TorchServe. `make demo` calls this.
# DATA: labelled photos (the drawn set is made when it is demo/data). RUN, ARTIFACTS: where the results go.
# FIT: options for training, in place of the ones that suit the drawn set.
set -euo pipefail
cd "$(dirname "$0")"
: "${PY:=.venv/bin/python}" "${DATA:=demo/data}" "${RUN:=run}" "${ARTIFACTS:=artifacts}" "${STATE:=demo/state}"
: "${FIT:=--model test_resnet --no-pretrained --size 96 --batch-size 16 --epochs 6}"

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
stop() { "$PY" -m unmask serve stop --state "$STATE" >/dev/null 2>&1 || true; }
trap stop EXIT

if [ "$DATA" = demo/data ]; then
  say "1/5 Drawing the demo set: portraits made with code, photographed or forged"
  "$PY" -m unmask demo-data "$DATA" --count 3000 --size 128
else
  say "1/5 Photos: $DATA"
fi

say "2/5 Training and calibrating"
# A run of yours is not written over: only one that the demo made.
if [ -e "$RUN/metrics.json" ] && [ ! -e "$RUN/.demo" ]; then
  echo "error: $RUN/ holds a run that the demo did not make; name another folder with RUN=DIR" >&2
  exit 1
fi
mkdir -p "$RUN" && touch "$RUN/.demo"
# shellcheck disable=SC2086  # FIT is a list of options
"$PY" -m unmask train --data "$DATA" --out "$RUN" --overwrite $FIT

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
printf 'report     %s/report/index.html\nartifacts  %s/\nserve it   make serve ARTIFACTS=%s\n' "$RUN" "$ARTIFACTS" "$ARTIFACTS"
