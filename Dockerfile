# The serving image, in stages: packages from a hashed lock, the server without a model, the server with a model.
#
#   docker build -t unmask:1.0.0-gpu .                   reads artifacts/, runs on CUDA and on CPU
#   docker build --target server -t unmask:server .      no model inside: mount one at /artifacts
#
# docs/how-to/kubernetes.md says how to build a smaller one for CPU, how to use a private index, and what was measured.

# Any glibc image with Python 3.11 and its venv module will do; give a digest to pin it: python@sha256:...
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS builder
# pip reads its settings from variables of these names. One that holds a password belongs in the secret instead, as a build
# argument can be read back from the builder's cache.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_CERT
ARG REQUIREMENTS=requirements/serve.lock
COPY ${REQUIREMENTS} /build/requirements.lock
# The lock names every package with its hash, so nothing is resolved, and wheels only: no package's set-up code is run.
# pip itself does not travel on.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/unmask \
    && /opt/unmask/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
        --requirement /build/requirements.lock \
    && /opt/unmask/bin/pip uninstall --yes --quiet pip
# Ours lie apart from the packages, so that a change here is a small layer. The gRPC stubs come from TorchServe's jar.
COPY detector /app/detector
COPY serve /app/serve
COPY unmask /app/unmask
WORKDIR /app
RUN PYTHONDONTWRITEBYTECODE=1 UNMASK_STUBS=/app/stubs /opt/unmask/bin/python -m unmask serve setup \
    && /opt/unmask/bin/python -m compileall -q /app

FROM ${BASE_IMAGE} AS server
ARG VERSION=1.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="unmask" \
      org.opencontainers.image.description="Serves a calibrated deepfake-image detector over REST and gRPC" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT"
RUN echo 'unmask:x:10001:' >> /etc/group \
    && echo 'unmask:x:10001:10001::/var/lib/unmask:/usr/sbin/nologin' >> /etc/passwd \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/unmask \
    && install -d -m 0755 /artifacts
COPY --from=builder /opt/unmask /opt/unmask
COPY --from=builder /app /app
ENV PATH=/opt/unmask/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    UNMASK_ARTIFACTS=/artifacts \
    UNMASK_STATE=/var/lib/unmask \
    UNMASK_STUBS=/app/stubs \
    UNMASK_HOST=0.0.0.0 \
    ORT_DISABLE_TELEMETRY=1
WORKDIR /app
USER 10001:10001
EXPOSE 8080 7070 8090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=150s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8090/livez', timeout=4)"]
# No shell: the supervisor is PID 1 and gets TERM itself. Flags may be appended; `unmask serve start --help` lists them.
ENTRYPOINT ["python", "-m", "unmask", "serve", "start"]

FROM server AS detector
COPY artifacts /artifacts
