# syntax=docker/dockerfile:1
# The one image: every part of ModelCache. `docker build .` gives `runtime`; `--target e2e` adds what
# test pods import. Packages come from the hashed locks alone; the image runs as nobody and needs no
# writable root.

FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements.lock requirements-dev.lock ./
COPY e2e ./e2e
RUN python -m e2e.lab.locks requirements-dev.lock hatchling packaging pathspec pluggy trove-classifiers > build.lock \
 && python -m e2e.lab.locks requirements-dev.lock numpy safetensors > tests.lock \
 && pip install --no-cache-dir --require-hashes -r build.lock
RUN python -m venv --without-pip /opt/modelcache \
 && pip --python /opt/modelcache/bin/python install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY crds ./crds
COPY operator ./operator
COPY csi_driver ./csi_driver
COPY cachenode ./cachenode
RUN pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
 && pip --python /opt/modelcache/bin/python install --no-cache-dir --no-deps --no-index wheels/*.whl

FROM build AS build-e2e
RUN pip --python /opt/modelcache/bin/python install --no-cache-dir --require-hashes -r tests.lock

FROM python:3.11-slim AS base
RUN groupadd --gid 65532 modelcache \
 && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin modelcache
ENV PATH=/opt/modelcache/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["modelcache"]

FROM base AS e2e
COPY --from=build-e2e /opt/modelcache /opt/modelcache

FROM base AS runtime
COPY --from=build /opt/modelcache /opt/modelcache
