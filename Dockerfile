# ddtool and all it needs, without network at run time: see docs/docker.md.
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS build
# An index beside pip's own, for torch: that of its CPU builds, or of another CUDA. Empty: pip's own only, on Linux CUDA.
ARG TORCH_INDEX=""
# Into an environment at the path where it stays, by the base image's pip: it needs none of its own.
RUN python -m venv --without-pip /opt/ddtool
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_PYTHON=/opt/ddtool/bin/python
COPY docker/requirements.lock /src/docker/
RUN pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --requirement /src/docker/requirements.lock
COPY pyproject.toml README.md LICENSE THIRD_PARTY_NOTICES.md /src/
COPY hub_cards /src/hub_cards
COPY ddtool /src/ddtool
RUN pip install --no-deps /src && pip check
# A fifth of the size: what only a compiler or a test of those packages reads.
RUN find /opt/ddtool/lib -type d \( -name tests -o -path '*/torch/test' -o -path '*/torch/include' \) -prune -exec rm -r {} +

FROM ${BASE_IMAGE}
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.title="ddtool" \
      org.opencontainers.image.description="Fast dataset distillation with a meta generator (MGDD)" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
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
