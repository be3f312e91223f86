# Stage 1 makes the environment; stage 2 has only that, and no root.
FROM python:3.13-slim AS build
WORKDIR /build
COPY pyproject.toml constraints.txt README.md ./
COPY gateway gateway
COPY providers providers
COPY functions functions
RUN python -m venv /opt/tidegate && /opt/tidegate/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.13-slim
RUN useradd --create-home --uid 10001 tidegate && mkdir -p /srv/tidegate/data && chown -R tidegate /srv/tidegate
COPY --from=build /opt/tidegate /opt/tidegate
ENV PATH=/opt/tidegate/bin:$PATH TIDEGATE_HOST=0.0.0.0 TIDEGATE_URL=http://127.0.0.1:8288
USER tidegate
WORKDIR /srv/tidegate
VOLUME /srv/tidegate/data
EXPOSE 8288
HEALTHCHECK CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8288/readyz', timeout=3)"]
CMD ["tidegate", "serve"]
