# A service over one bundle; docs/deploying.md says how to build and run it.
#   docker build -t headstart-serve .
#   docker run --rm -p 127.0.0.1:8000:8000 -e HEADSTART_TOKEN -v "$PWD/runs/flowers/export:/bundle:ro" \
#     --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --memory 4g \
#     headstart-serve
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 HEADSTART_OFFLINE=1 HEADSTART_CACHE=/tmp/headstart
COPY pyproject.toml README.md LICENSE /app/
COPY src /app/src
RUN pip install "/app[serve]" \
    && useradd --system --no-create-home --uid 10001 headstart

USER headstart
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
# Listening beyond the container needs HEADSTART_TOKEN; without it the command refuses to start.
ENTRYPOINT ["headstart", "serve", "/bundle", "--host", "0.0.0.0", "--port", "8000"]
