# Stage 1 makes the environment; stage 2 has only that, and no root.
FROM python:3.13-slim AS build
WORKDIR /build
RUN python -m venv --without-pip /opt/tidegate
COPY pyproject.toml constraints.txt README.md ./
COPY gateway gateway
COPY providers providers
COPY functions functions
RUN pip --python /opt/tidegate/bin/python install --no-cache-dir --constraint constraints.txt .

FROM python:3.13-slim
RUN useradd --create-home --uid 10001 tidegate && install --directory --owner tidegate --mode 0700 /srv/tidegate/data
COPY --from=build /opt/tidegate /opt/tidegate
# All addresses: a container has its own, and every call of the API needs a key. `docker stop` waits 10 seconds.
# PIP_PYTHON: where `pip install` puts what your functions need, in an image built on this one.
ENV PATH=/opt/tidegate/bin:$PATH \
    PIP_PYTHON=/opt/tidegate/bin/python \
    TIDEGATE_HOST=0.0.0.0 \
    TIDEGATE_SHUTDOWN_SECONDS=6
USER tidegate
WORKDIR /srv/tidegate
VOLUME /srv/tidegate/data
EXPOSE 8288
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", \
    "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('TIDEGATE_PORT', 8288)}/readyz\", timeout=4)"]
CMD ["tidegate", "serve"]
