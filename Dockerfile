# One image for every role: `dofs serve api`, `dofs serve worker`, `dofs serve projector`, `dofs migrate`.
# DOFS__SECTION__KEY variables configure the program; the defaults are compiled in.
#
#   docker build --build-arg DOFS_COMMIT="$(git rev-parse --short HEAD)" --tag dofs:local .
#
# Each platform is built natively, or by emulation: docker buildx build --platform linux/amd64,linux/arm64
#
# The base images are named by tag. To pin them, pass their digests, for example
#   --build-arg RUNTIME_DIGEST="$(docker buildx imagetools inspect gcr.io/distroless/cc-debian12:nonroot \
#       --format '{{json .Manifest.Digest}}' | tr -d '"')"
ARG RUST_DIGEST
ARG RUNTIME_DIGEST

FROM rust:1.95-bookworm${RUST_DIGEST:+@${RUST_DIGEST}} AS tools
RUN cargo install --locked cargo-chef@0.1.78 cargo-auditable@0.7.7
WORKDIR /build

# The recipe contains the manifests only, so a change to other files does not invalidate the next stage.
FROM tools AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM tools AS build
COPY --from=planner /build/recipe.json recipe.json
# The settings for C code (`[env]`) must be the same for dependencies and program.
COPY .cargo .cargo
RUN cargo chef cook --release --locked --package dofs --recipe-path recipe.json
COPY . .
# Commit that `dofs version` names: the build context has no repository.
ARG DOFS_COMMIT
# The list of dependencies becomes part of the program, where scanners of vulnerabilities find it.
RUN cargo auditable build --release --locked --package dofs && \
    install --directory /image/data && \
    install target/release/dofs /image/dofs

# Contains the C library, root certificates and time zones, but no shell.
FROM gcr.io/distroless/cc-debian12:nonroot${RUNTIME_DIGEST:+@${RUNTIME_DIGEST}}
ARG DOFS_COMMIT
ARG DOFS_VERSION
LABEL org.opencontainers.image.title="DOFS" \
      org.opencontainers.image.description="Event-sourced order fulfillment: API, worker, projector and event store" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${DOFS_VERSION}" \
      org.opencontainers.image.revision="${DOFS_COMMIT}"
COPY --from=build /image/dofs /usr/local/bin/dofs
# Data folder of `dofs node`. A volume that is mounted here gets this owner.
COPY --from=build --chown=65532:65532 /image/data /var/lib/dofs
# A number: Kubernetes verifies `runAsNonRoot` without the image's list of users.
USER 65532:65532
WORKDIR /var/lib/dofs
# API, and the operations listener if `ops.listen` is 0.0.0.0:9610.
EXPOSE 8080 9610
# SIGTERM drains: no new requests or deliveries, and work in progress finishes.
STOPSIGNAL SIGTERM
# Asks the API. For other roles: dofs healthcheck --role worker|projector|node
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s --retries=12 CMD ["dofs", "healthcheck"]
ENTRYPOINT ["dofs"]
