# syntax=docker/dockerfile:1
#
#   docker build -t goma-edge .                      runs as the user goma (65532)
#   docker build -t goma-edge:root --target root .   runs as root: where mounted files belong to root and are closed to others, as
#                                                    they often are after years with an image that ran as root
#
# The second is also `docker run --user 0`. Better: `chown -R 65532:65532` the mounted folders once, and use the first.
ARG DEBIAN=bookworm
ARG RUST=1.95

# ---- build -----------------------------------------------------------------------------------------------------------------
FROM rust:${RUST}-${DEBIAN} AS build
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends cmake \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Kernels for arm64 have pages of 4, 16 or 64 KiB; an allocator built for the largest runs on all of them.
ARG TARGETARCH
RUN if [ "$TARGETARCH" = arm64 ]; then echo 'export JEMALLOC_SYS_WITH_LG_PAGE=16'; fi > /build-env
# The dependencies alone, with empty sources: this layer stays until Cargo.toml or Cargo.lock change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches \
 && for bench in $(sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"/\1/p' Cargo.toml); do echo 'fn main() {}' > "benches/$bench.rs"; done \
 && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
 && . /build-env && cargo build --release --locked --bin goma \
 && rm -rf src benches
COPY . .
ARG COMMIT=unknown
ARG SOURCE_DATE_EPOCH
RUN touch src/main.rs src/lib.rs \
 && . /build-env && GOMA_COMMIT="$COMMIT" cargo build --release --locked --bin goma \
 && strip -o /goma target/release/goma

# ---- what both variants run ------------------------------------------------------------------------------------------------
FROM debian:${DEBIAN}-slim AS base
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends ca-certificates tzdata \
 && rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log
RUN groupadd --gid 65532 goma \
 && useradd --uid 65532 --gid 65532 --no-create-home --no-log-init --home-dir /etc/goma --shell /usr/sbin/nologin goma \
 && install -d -o goma -g goma /etc/goma /var/log/goma /var/lib/goma
COPY --from=build /goma /usr/local/bin/goma
RUN ln -s /usr/local/bin/goma /goma
# How long the container still serves, not ready, after it was told to stop, while load balancers take note. A delay in the
# configuration counts instead of it.
ENV GOMA_SHUTDOWN_DELAY=5s
EXPOSE 8080 8443
STOPSIGNAL SIGTERM
# Asks the entry point `web` of GOMA_CONFIG_FILE, else of /etc/goma/goma.yml.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/local/bin/goma", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/goma"]
CMD ["server"]

# ---- as root ---------------------------------------------------------------------------------------------------------------
FROM base AS root
USER root

# ---- the default -----------------------------------------------------------------------------------------------------------
FROM base AS unprivileged
USER 65532:65532
