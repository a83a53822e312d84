# rowwise serve in a container: the page and the API on port 8000, with the models that ship.
#
#   docker build -t rowwise .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#     -e ROWWISE_SERVE_API_KEYS="$(openssl rand -hex 32)" -p 8000:8000 rowwise
#
# docs/serving.md says what a proxy before it has to do.

FROM python:3.13-slim AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY src ./src
RUN python -m pip install --no-cache-dir -c constraints.txt setuptools \
 && python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && python -m venv /srv/rowwise \
 && /srv/rowwise/bin/python -m pip install --no-cache-dir -c constraints.txt \
      "rowwise[serve] @ file://$(ls /build/dist/*.whl)"

FROM python:3.13-slim
LABEL org.opencontainers.image.title="Rowwise" \
      org.opencontainers.image.description="Reads handwritten digits, one row at a time" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin rowwise
COPY --from=build /srv/rowwise /srv/rowwise
ENV PATH=/srv/rowwise/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
# Without an API key it refuses to start: others can reach it.
ENTRYPOINT ["rowwise", "serve"]
CMD ["--host", "0.0.0.0", "--port", "8000"]
