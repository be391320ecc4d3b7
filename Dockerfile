# syntax=docker/dockerfile:1
# The service in an image: dependencies by hash, no build tools, not root.
ARG PYTHON_IMAGE=python:3.11.14-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv --without-pip /opt/outbox
COPY pyproject.toml requirements.lock ./
# What running needs, with the versions and hashes of the lock file; tests' tools stay out.
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*p['dependencies'], *p['optional-dependencies']['otel'], sep='\n')" > runtime.txt \
 && pip --python /opt/outbox/bin/python install --require-hashes --only-binary :all: \
    -r runtime.txt -c requirements.lock
COPY README.md ./
COPY service ./service
COPY migrations ./migrations
RUN pip wheel --no-deps --wheel-dir wheels . \
 && pip --python /opt/outbox/bin/python install --no-deps wheels/*.whl \
 && /opt/outbox/bin/python -m compileall -q /opt/outbox/lib

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/outbox --create-home outbox \
 && rm -rf /usr/local/lib/python3.11/site-packages/pip* /usr/local/bin/pip*
COPY --from=build /opt/outbox /opt/outbox
ENV PATH=/opt/outbox/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=3000 \
    OUTBOX_URL=sqlite:////var/lib/outbox/outbox.db
USER outbox
WORKDIR /var/lib/outbox
VOLUME /var/lib/outbox
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/healthz\", timeout=2)"]
CMD ["python", "-m", "service", "serve"]
