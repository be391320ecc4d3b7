# The service in an image: dependencies by hash, no build tools, one fixed user who isn't root.
ARG PYTHON_IMAGE=python:3.11.14-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements-build.lock requirements.lock ./
RUN python -m pip install --quiet --require-hashes --no-deps --only-binary :all: -r requirements-build.lock \
 && python -m venv --without-pip /opt/outbox \
 && python -m pip --python /opt/outbox/bin/python install --quiet \
    --require-hashes --no-deps --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY migrations ./migrations
COPY service ./service
# botocore describes every AWS service; this one talks to S3, and to those that give credentials.
# Of Swagger's files it serves the ones that show a description.
RUN find /opt/outbox/lib/python3.*/site-packages/botocore/data -mindepth 1 -maxdepth 1 -type d \
    ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -r {} + \
 && find /opt/outbox/lib/python3.*/site-packages/swagger_ui/static \
    \( -name 'swagger-editor*' -o -name '*.map' \) -delete
RUN python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir wheels . \
 && python -m pip --python /opt/outbox/bin/python install --quiet --no-deps wheels/*.whl \
 && python -m pip --python /opt/outbox/bin/python check \
 && python -m compileall -q /opt/outbox/lib

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="inngest-outbox" \
      org.opencontainers.image.description="A durable outbox between web front ends and Inngest" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
RUN groupadd --gid 10001 outbox \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/outbox --shell /usr/sbin/nologin outbox \
 && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/outbox \
 && python -m pip --quiet --quiet uninstall --yes --root-user-action=ignore setuptools wheel pip
COPY --from=build /opt/outbox /opt/outbox
ENV PATH=/opt/outbox/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    APP_ENV=production \
    HOST=0.0.0.0 \
    PORT=3000 \
    OUTBOX_URL=sqlite:////var/lib/outbox/outbox.db
USER 10001:10001
WORKDIR /var/lib/outbox
VOLUME /var/lib/outbox
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/healthz\", timeout=2)"]
CMD ["inngest-outbox", "serve"]
