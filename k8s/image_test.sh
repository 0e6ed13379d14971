#!/usr/bin/env bash
# Builds the serving image and proves it: ready, a photo scored over REST and gRPC, killed and back, a clean end on TERM.
#
#   ARTIFACTS=artifacts bash k8s/image_test.sh
#
# Needs root and buildah (no daemon). With podman too, the container runs as a pod's would: the supervisor is PID 1, the root is
# read-only, no capabilities, no network but loopback, two CPUs. Without, `buildah run` runs it, which proves less, and says so.
#
#   ARTIFACTS       what to serve: the project's own artifacts/ are built into the image, others are mounted
#   BASE_IMAGE      an image with Python 3.11; by default the Dockerfile's, or one made by debootstrap where that can't be pulled
#   REQUIREMENTS    the lock to install: requirements/serve-cpu.lock; with requirements/serve.lock, PyTorch and CUDA, it takes 30 GB of disk
#   ARCHIVE         which archive to serve: onnx, int8, fp16 or torchscript
#   PIP_INDEX_URL, PIP_FIND_LINKS, PIP_CERT    pip's own variables, handed on to the build
# Nothing is left behind: containers and images live in a folder of their own that goes at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

artifacts=$(realpath -m "${ARTIFACTS:-artifacts}")
requirements=${REQUIREMENTS:-requirements/serve-cpu.lock}
archive=${ARCHIVE:-onnx}
image=localhost/unmask:image-test
name=unmask-image-test-$$
process=

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

command -v buildah > /dev/null || fail "buildah is not installed (Debian: apt-get install buildah)"
[ "$(id -u)" = 0 ] || fail "building in a chroot needs root"
[ -f "$artifacts/manifest.json" ] || fail "no artifacts in $artifacts; make them with 'make demo' or name a folder with ARTIFACTS=…"
[ -f "$requirements" ] || fail "no such lock: $requirements"

work=$(mktemp -d "${TMPDIR:-/tmp}/unmask-image.XXXXXX")
buildah=(buildah --root "$work/storage" --runroot "$work/run")
podman=(podman --root "$work/storage" --runroot "$work/run" --cgroup-manager cgroupfs --events-backend none)

cleanup() {
  set +e
  if [ -n "$process" ]; then
    signal TERM 2> /dev/null || kill "$process"
    timeout 60 tail --pid="$process" -f /dev/null
  fi
  command -v podman > /dev/null && "${podman[@]}" rm --force --time 5 "$name" > /dev/null 2>&1
  "${buildah[@]}" rm --all > /dev/null 2>&1
  "${buildah[@]}" rmi --all --force > /dev/null 2>&1
  umount "$work/storage/overlay" 2> /dev/null
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT

# --- a base image
base=${BASE_IMAGE:-}
if [ -z "$base" ]; then
  base=$(sed -n 's/^ARG BASE_IMAGE=//p' Dockerfile)
  say "base image: $base"
  if ! timeout 120 "${buildah[@]}" pull --quiet "$base" > "$work/pull.log" 2>&1; then
    tail -1 "$work/pull.log"
    command -v debootstrap > /dev/null || fail "$base cannot be pulled; give BASE_IMAGE=…, or install debootstrap to make one"
    say "it cannot be pulled here, so debootstrap makes one: Debian bookworm with its Python 3.11"
    timeout 900 debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/base" \
      > "$work/debootstrap.log" 2>&1 || { tail -20 "$work/debootstrap.log"; fail "debootstrap failed"; }
    rm -rf "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/lib/apt/lists/*
    container=$("${buildah[@]}" from scratch)
    "${buildah[@]}" add --quiet "$container" "$work/base" / > /dev/null
    "${buildah[@]}" config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    base=localhost/unmask-base:bookworm
    "${buildah[@]}" commit --quiet "$container" "$base" > /dev/null
    "${buildah[@]}" rm "$container" > /dev/null
    rm -rf "$work/base"
  fi
fi

# --- the image
target=server
[ "$artifacts" = "$PWD/artifacts" ] && target=detector
say "building the stage '$target' on $base with $requirements"
options=(--build-arg "BASE_IMAGE=$base" --build-arg "REQUIREMENTS=$requirements")
[ -n "${PIP_INDEX_URL:-}" ] && options+=(--build-arg "PIP_INDEX_URL=$PIP_INDEX_URL")
if [ -d "${PIP_FIND_LINKS:-}" ]; then
  options+=(--build-arg PIP_FIND_LINKS=/mnt/wheels --volume "$(realpath "$PIP_FIND_LINKS"):/mnt/wheels:ro")
fi
if [ -f "${PIP_CERT:-}" ]; then
  options+=(--build-arg PIP_CERT=/mnt/ca.crt --volume "$(realpath "$PIP_CERT"):/mnt/ca.crt:ro")
fi
started=$SECONDS
timeout 2400 "${buildah[@]}" build --isolation chroot --format docker --layers --target "$target" --tag "$image" "${options[@]}" . \
  > "$work/build.log" 2>&1 || { tail -40 "$work/build.log"; fail "the build failed"; }
printf 'built in %d s, %s\n' $((SECONDS - started)) "$("${buildah[@]}" images --format '{{.Size}}' "$image")"

# --- run the image's own command
chmod 0755 "$work"
mkdir "$work/state" "$work/tmp" && chown 10001:10001 "$work/state" "$work/tmp"
volumes=(--volume "$work/state:/var/lib/unmask" --volume "$work/tmp:/tmp")
[ "$target" = server ] && volumes+=(--volume "$artifacts:/artifacts:ro")
limits=(--network none --read-only --cap-drop ALL --security-opt no-new-privileges --memory 3g --cpus 2
        --ulimit nofile=4096:4096 --ulimit nproc=4096:4096)
list() { "${buildah[@]}" inspect --type image --format "{{range $1}}{{println .}}{{end}}" "$image" | sed '/^$/d'; }
mapfile -t entrypoint < <(list .OCIv1.Config.Entrypoint)
mapfile -t healthcheck < <(list .Docker.Config.Healthcheck.Test)

runtime=
for candidate in crun runc; do
  if command -v podman > /dev/null && command -v "$candidate" > /dev/null \
    && "${podman[@]}" --runtime "$candidate" run --rm --entrypoint python "${limits[@]}" "$image" -c pass > "$work/runtime.log" 2>&1; then
    runtime=$candidate
    break
  fi
done

if [ -n "$runtime" ]; then
  say "running it as a pod would be: podman with $runtime, uid 10001, read-only root, no capabilities, no network, 2 CPUs, 3 GB"
  start() { "${podman[@]}" --runtime "$runtime" start "$name" > /dev/null; }
  inside() { timeout 60 "${podman[@]}" --runtime "$runtime" exec --interactive "$name" "$@"; }
  signal() { "${podman[@]}" --runtime "$runtime" kill --signal "$1" "$name" > /dev/null; }
  ended() { code=$(timeout 60 "${podman[@]}" wait "$name"); }
  logs() { "${podman[@]}" logs "$name" 2>&1; }
  "${podman[@]}" --runtime "$runtime" create --name "$name" --no-healthcheck --env UNMASK_ARCHIVE="$archive" --log-driver k8s-file \
    "${limits[@]}" "${volumes[@]}" "$image" > /dev/null
else
  say "running it with 'buildah run' in a chroot as uid 10001"
  echo "not shown this way: PID 1, a read-only root, dropped capabilities, limits (install podman with crun or runc for these)"
  container=$("${buildah[@]}" from "$image")
  "${buildah[@]}" config --env UNMASK_ARCHIVE="$archive" "$container"
  run=("${buildah[@]}" run --isolation chroot "${volumes[@]}" "$container" --)
  start() { timeout 300 "${run[@]}" "${entrypoint[@]}" > "$work/container.log" 2>&1 & process=$!; }
  inside() { timeout 60 "${run[@]}" "$@"; }
  signal() { kill "-$1" "$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' "$work/state/server.json")"; }
  ended() { code=0; wait "$process" || code=$?; process=; }
  logs() { cat "$work/container.log"; }
fi

await_ready() {
  inside python - << 'PYTHON' || { logs | tail -30; fail "not ready"; }
import time, urllib.error, urllib.request
end = time.monotonic() + 50
while True:
    try:
        print(urllib.request.urlopen("http://127.0.0.1:8090/readyz", timeout=5).read().decode().strip())
        break
    except (OSError, urllib.error.HTTPError) as error:
        if time.monotonic() > end:
            raise SystemExit(f"/readyz: {error}")
        time.sleep(0.25)
PYTHON
}

started=$(date +%s%N)
start
await_ready
printf 'ready after %d ms\n' $((($(date +%s%N) - started) / 1000000))

say "a photo over REST and over gRPC"
inside python - << 'PYTHON' || { logs | tail -30; fail "a wrong answer"; }
import json, subprocess, sys, tempfile, urllib.request
from pathlib import Path
from PIL import Image

photo = Path(tempfile.mkdtemp()) / "photo.jpg"
Image.radial_gradient("L").convert("RGB").save(photo, quality=90)
def client(*flags):
    command = [sys.executable, "-m", "unmask", "predict", *flags, str(photo)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=50).stdout)
url = "http://127.0.0.1:8080/predictions/detector"
request = urllib.request.Request(url, photo.read_bytes(), {"Content-Type": "image/jpeg"})
plain = json.loads(urllib.request.urlopen(request, timeout=30).read())
answers = [plain, client(), client("--grpc")]
print(json.dumps(plain))
assert all(a["ok"] for a in answers), answers
assert len({(a["prediction"], a["logit"], a["calibrated"]) for a in answers}) == 1, answers
PYTHON

say "what the container may do"
inside python - "${runtime:+strict}" << 'PYTHON' || fail "the container may do too much, or too little"
import json, os, socket, sys, urllib.request
from pathlib import Path

def open_on(address, port):
    with socket.socket() as s:
        s.settimeout(5)
        return s.connect_ex((address, port)) == 0

def writable(path):
    try:
        (Path(path) / "probe").write_text("")
        (Path(path) / "probe").unlink()
        return True
    except OSError:
        return False

found = {
    "uid": os.getuid(),
    # Whoever connects to 127.0.0.2 meets what listens on every address, and not what listens on 127.0.0.1 alone.
    "open to others": [p for p in (8080, 7070, 8090, 8081, 8082, 7071) if open_on("127.0.0.2", p)],
    "writable": [d for d in ("/", "/app", "/opt/unmask", "/artifacts", "/usr", "/var/lib/unmask", "/tmp") if writable(d)],
}
expected = {"uid": 10001, "open to others": [8080, 7070, 8090], "writable": ["/var/lib/unmask", "/tmp"]}
if sys.argv[1:] == ["strict"]:
    status = dict(line.split(":\t", 1) for line in Path("/proc/1/status").read_text().splitlines() if ":\t" in line)
    root = next(line.split() for line in Path("/proc/mounts").read_text().splitlines() if line.split()[1] == "/")
    found |= {
        "process 1": Path("/proc/1/cmdline").read_text().split("\0")[1:5],
        "capabilities": int(status["CapPrm"], 16) | int(status["CapBnd"], 16),
        "no new privileges": status["NoNewPrivs"],
        "seccomp": status["Seccomp"],
        "root": root[3].split(",")[0],
    }
    expected |= {
        "process 1": ["-m", "unmask", "serve", "start"],
        "capabilities": 0,
        "no new privileges": "1",
        "seccomp": "2",
        "root": "ro",
    }
print(json.dumps(found))
assert found == expected, expected
metrics = urllib.request.urlopen("http://127.0.0.1:8090/metrics", timeout=10).read().decode()
assert "unmask_ready 1.0" in metrics and "unmask_queue_pending" in metrics, metrics
assert not (Path.home() / ".cache" / "Microsoft").exists(), "ONNX Runtime collects telemetry"
PYTHON
inside "${healthcheck[@]:1}" || fail "the image's HEALTHCHECK fails while it is ready"

if [ -n "$runtime" ]; then
  say "killed and started again with the same state, as a kubelet restarts a container"
  signal KILL
  ended
  start
  await_ready
fi

say "TERM"
started=$(date +%s%N)
signal TERM
ended
printf 'ended with %s after %d ms\n' "$code" $((($(date +%s%N) - started) / 1000000))
logs | tail -12
[ "$code" = 0 ] || fail "a clean end is 0"
[ ! -e "$work/state/server.json" ] || fail "the record of the server is still there"

say "the image serves"
