# ddtool and all it needs, without network at run time: see docs/docker.md.
ARG BASE_IMAGE=python:3.12.12-slim-bookworm

FROM ${BASE_IMAGE} AS build
# The index to take torch from: that of its CPU builds, or of another CUDA. Empty: pip's own, which on Linux has the CUDA build.
ARG TORCH_INDEX=""
# Into an environment at the path where it stays, by the base image's pip: it needs none of its own.
RUN python -m venv --without-pip /opt/ddtool
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PYTHON=/opt/ddtool/bin/python
COPY docker/requirements.lock docker/torch.lock /src/docker/
# Every file is the one whose hash the locks have; a build of torch from another index is taken by its version.
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --require-hashes --requirement /src/docker/requirements.lock \
 && if [ -n "$TORCH_INDEX" ]; \
    then pip install --index-url "$TORCH_INDEX" "$(grep -o '^torch==[0-9.]*' /src/docker/torch.lock)"; \
    else pip install --no-deps --require-hashes --requirement /src/docker/torch.lock; \
    fi
COPY pyproject.toml README.md LICENSE THIRD_PARTY_NOTICES.md /src/
COPY hub_cards /src/hub_cards
COPY ddtool /src/ddtool
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps /src && pip check
# A fifth of the size: what only a compiler or a test of those packages reads.
RUN find /opt/ddtool/lib -type d \( -name tests -o -path '*/torch/test' -o -path '*/torch/include' \) -prune -exec rm -r {} +

FROM ${BASE_IMAGE}
ARG VERSION=""
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="ddtool" \
      org.opencontainers.image.description="Fast dataset distillation with a meta generator (MGDD)" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
COPY --from=build /opt/ddtool /opt/ddtool
# Whoever runs it (--user) may write where runs and caches go, as in /tmp.
RUN useradd --uid 1000 --home-dir /cache --no-create-home --shell /usr/sbin/nologin ddtool \
 && mkdir /cache /data \
 && chown ddtool:ddtool /cache /data \
 && chmod 1777 /cache /data
ENV PATH=/opt/ddtool/bin:$PATH \
    HOME=/cache \
    HF_HOME=/cache/huggingface \
    DDTOOL_CACHE=/cache/ddtool \
    PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /data
VOLUME ["/cache", "/data"]
# What ends ddtool as Ctrl-C does, with a checkpoint; as process 1 it would not hear SIGTERM everywhere.
STOPSIGNAL SIGINT
ENTRYPOINT ["ddtool"]
CMD ["--help"]
