# One image from a plugin's source: embedded → triton → toolchain → plugins → models → runtime.
#
#   python -m builder build     this file through `docker buildx bake`, with labels, checks and a record
#   docker build .              the same files by hand, without the labels
#   docker build --build-arg TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.06-py3 .
#
# On a network that inspects TLS add `--secret id=ca,src=/etc/ssl/certs/ca-certificates.crt`; no layer keeps it.
# A package index of your own goes in the same way, as a pip.conf: `--secret id=pip,src=pip.conf`.

# `embedded` is the stage below. Any image in NVIDIA's layout takes its place, and nothing else changes.
ARG TRITON_IMAGE=embedded
ARG DEBIAN_IMAGE=docker.io/library/debian:12-slim

# What plugins are compiled against: the base itself, or `wheel`, the same DALI from PyPI, where the base is too large for the
# machine that compiles.
ARG COMPILED_ON=triton
# What the image's own layers lie on. `python -m builder` gives an image with the base's configuration and none of its layers,
# and puts these under its own by digest, so that nothing moves them.
ARG SERVED_ON=triton

# What is the same for every project. `python -m builder` gives its own files in place of this stage, so that a project
# needs none of them.
FROM scratch AS package
COPY embedded /embedded
COPY builder/dali_proto.py /builder/
COPY builder/stages /builder/stages

# The versions of Debian's packages that builder.lock holds, one NAME=VERSION a line. Without a lock there is none.
FROM scratch AS lock

# ---- embedded: Triton and DALI out of Debian and PyPI alone, in NVIDIA's layout -----------------------------------------

# Wheels are installed here and copied on, so that pip is in no image.
FROM ${DEBIAN_IMAGE} AS pip
RUN --mount=type=cache,id=apt-archives,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,id=apt-lists,target=/var/lib/apt/lists,sharing=locked \
    --mount=type=bind,from=package,source=/embedded/install,target=/run/install --mount=type=bind,from=lock,target=/run/lock \
    --mount=type=secret,id=ca <<EOF
    set -e  # install pip
    /run/install/apt python3-pip
EOF

FROM pip AS embedded-server
COPY --from=package /embedded/requirements/triton.txt /requirements/
RUN --mount=type=cache,id=pip,target=/root/.cache/pip --mount=type=secret,id=ca --mount=type=secret,id=pip \
    --mount=type=bind,from=package,source=/embedded/install,target=/run/install <<EOF
    set -e  # unpack the server
    /run/install/pip --no-deps --target /wheel -r /requirements/triton.txt
    mkdir -p /root-fs/opt/tritonserver/backends
    cd /wheel/pytriton/tritonserver
    mv bin caches /root-fs/opt/tritonserver/
    mv backends/python /root-fs/opt/tritonserver/backends/
    mv python_backend_stubs/3.11/triton_python_backend_stub /root-fs/opt/tritonserver/backends/python/
    mv /wheel/nvidia_pytriton.libs /root-fs/opt/tritonserver/lib
    /run/install/bytecode /root-fs
EOF

FROM pip AS embedded-dali
ARG DALI_VERSION=1.53.0
COPY --from=package /embedded/requirements/dali-${DALI_VERSION}.txt /requirements/dali.txt
RUN --mount=type=cache,id=pip,target=/root/.cache/pip --mount=type=secret,id=ca --mount=type=secret,id=pip \
    --mount=type=bind,from=package,source=/embedded/install,target=/run/install <<EOF
    set -e  # install DALI
    /run/install/pip --target /root-fs/opt/tritonserver/backends/dali/wheel/dali -r /requirements/dali.txt
    /run/install/bytecode /root-fs
EOF

FROM pip AS embedded-backend
COPY --from=package /embedded/backend /builder/dali_proto.py /root-fs/opt/tritonserver/backends/dali/
COPY --from=package --chmod=755 /embedded/entrypoint.py /root-fs/opt/nvidia/nvidia_entrypoint.sh
# So that models in Python find NumPy and DALI, as in NVIDIA's image.
COPY --from=package /embedded/dali.pth /root-fs/usr/local/lib/python3.11/dist-packages/
RUN --mount=type=bind,from=package,source=/embedded/install,target=/run/install <<EOF
    set -e  # compile the backend
    /run/install/bytecode /root-fs
EOF

# The packages' files are a layer of their own, with nothing in it of the day on which it was made.
FROM ${DEBIAN_IMAGE} AS embedded-packages
RUN --mount=type=cache,id=apt-archives,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,id=apt-lists,target=/var/lib/apt/lists,sharing=locked \
    --mount=type=bind,from=package,source=/embedded/install,target=/run/install --mount=type=bind,from=lock,target=/run/lock \
    --mount=type=secret,id=ca <<EOF
    set -e  # install the runtime's packages
    touch /since
    /run/install/apt curl libpython3.11 python3
    SOURCE_DATE_EPOCH=0 useradd --uid 1000 --user-group --create-home triton-server
    /run/install/changes /since /root-fs
EOF

FROM ${DEBIAN_IMAGE} AS embedded
COPY --link --from=embedded-packages /root-fs/ /
COPY --link --from=embedded-dali /root-fs/ /
COPY --link --from=embedded-server /root-fs/ /
COPY --link --from=embedded-backend /root-fs/ /
ENV PATH=/opt/tritonserver/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LD_LIBRARY_PATH=/opt/tritonserver/lib \
    PYTHONDONTWRITEBYTECODE=1 \
    TRITON_SERVER_VERSION=2.51.0 \
    NVIDIA_TRITON_SERVER_VERSION=24.10
WORKDIR /opt/tritonserver
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh"]


# ---- the project's image ------------------------------------------------------------------------------------------------

FROM ${TRITON_IMAGE} AS triton
# Where all layouts keep DALI; `python3` finds it there in the stages below.
ENV DALI_HOME=/opt/tritonserver/backends/dali/wheel/dali

# No base but Debian: DALI alone, where NVIDIA's layout has it.
FROM pip AS wheel
ARG DALI_VERSION=1.53.0
ENV DALI_HOME=/opt/tritonserver/backends/dali/wheel/dali
COPY --from=package /embedded/requirements/dali-${DALI_VERSION}.txt /requirements/dali.txt
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip \
    --mount=type=bind,from=package,source=/embedded/install,target=/run/install <<EOF
    set -e  # install DALI
    /run/install/pip --no-cache-dir --target ${DALI_HOME} -r /requirements/dali.txt
    # What other Pythons would load: machines that have no room for the base have none for that.
    find ${DALI_HOME} -name '*.cpython-*.so' ! -name '*.cpython-311-*' -delete
EOF

# The very base that will load the plugin, and so the same C library, libstdc++ and DALI; or a stand-in with the same DALI.
FROM ${COMPILED_ON} AS abi
USER root

FROM abi AS toolchain
RUN --mount=type=cache,id=apt-archives,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,id=apt-lists,target=/var/lib/apt/lists,sharing=locked \
    --mount=type=bind,from=package,source=/embedded/install,target=/run/install --mount=type=bind,from=lock,target=/run/lock \
    --mount=type=secret,id=ca <<EOF
    set -e  # install the compiler
    /run/install/apt g++ python3-pip
EOF
COPY --from=package /embedded/requirements/toolchain.txt /requirements/
RUN --mount=type=cache,id=pip,target=/root/.cache/pip --mount=type=secret,id=ca --mount=type=secret,id=pip \
    --mount=type=bind,from=package,source=/embedded/install,target=/run/install <<EOF
    set -e  # install nvcc and CMake
    /run/install/pip --target /opt/toolchain -r /requirements/toolchain.txt
EOF
ENV PATH=/opt/toolchain/bin:${PATH} \
    PYTHONPATH=/opt/toolchain:${DALI_HOME}${PYTHONPATH:+:${PYTHONPATH}} \
    CUDACXX=/opt/toolchain/nvidia/cu13/bin/nvcc

FROM toolchain AS plugins
# cmake's lists, separated by semicolons; empty for the default that plugin/CMakeLists.txt documents.
ARG CUDA_ARCHITECTURES=
ARG DALI_PLUGIN_CUDA=ON
# As a pattern, which may match nothing: models of DALI's own operators need no plugin.
COPY plugi[n] /src/plugin
COPY model_repository/*.so /given/
# A build folder that stays here, so that only what changed is compiled again; a FRESH that it does not know asks for another
# one. It is no secret, as with one BuildKit would read the whole toolchain first, to tell whether it is the same.
ARG DALI_VERSION=1.53.0
ARG FRESH=
RUN --mount=type=bind,from=package,source=/builder/stages,target=/run/stages \
    --mount=type=cache,id=plugins-${DALI_VERSION}-${DALI_PLUGIN_CUDA},target=/kept,sharing=locked <<EOF
    set -e  # compile the plugins
    mkdir -p /plugins-fs/models /given
    if [ -d /src/plugin ]; then
        python3 /run/stages/compile.py /src/plugin /kept /plugins-fs/models -DCMAKE_MODULE_PATH=/run/stages/cmake \
            -DDALI_PLUGIN_CUDA=${DALI_PLUGIN_CUDA} ${CUDA_ARCHITECTURES:+"-DCMAKE_CUDA_ARCHITECTURES=${CUDA_ARCHITECTURES}"}
    fi
    # Libraries that were compiled elsewhere lie beside the models.
    find /given -name '*.so' -exec cp -t /plugins-fs/models {} +
    find /plugins-fs/models -mindepth 1 -maxdepth 1 ! -name '*.so' -exec rm -r {} +
    chmod -R u=rwX,go=rX /plugins-fs
    find /plugins-fs -exec touch --no-dereference --date=@0 {} +
EOF

FROM abi AS models
ENV PYTHONPATH=${DALI_HOME}${PYTHONPATH:+:${PYTHONPATH}} PYTHONDONTWRITEBYTECODE=1
COPY --from=plugins /plugins-fs/models /plugins
COPY model_repository /root-fs/models/
COPY --from=package /builder/stages /stages
# Pipelines load their plugin from /models, where the server will have it. In the image libraries are a layer of their own:
# a change of one sends no model, and the other way round.
RUN <<EOF
    set -e  # serialize the pipelines
    ln -s /root-fs/models /models
    find /plugins -name '*.so' -exec ln -sf -t /models {} +
    python3 /stages/serialize.py /models
    find /models/ -maxdepth 1 -name '*.so' -delete
    find /root-fs -type d -name __pycache__ -prune -exec rm -r {} +
    chmod -R u=rwX,go=rX /root-fs
    find /root-fs -exec touch --no-dereference --date=@0 {} +
EOF

# What loading them tells.
FROM abi AS facts
ENV PYTHONPATH=${DALI_HOME}${PYTHONPATH:+:${PYTHONPATH}} PYTHONDONTWRITEBYTECODE=1
COPY --from=plugins /plugins-fs/ /
COPY --from=package /builder/stages /stages
# The libraries that the server will load, separated by colons; empty for all of them, by name.
ARG PLUGIN_LIBS=
RUN <<EOF
    set -e  # load the plugins
    python3 /stages/facts.py /models ${PLUGIN_LIBS:+"${PLUGIN_LIBS}"} > /facts.json
    python3 /stages/inventory.py > /inventory.json
EOF

# What they were made with.
FROM toolchain AS inventory
COPY --from=package /builder/stages /stages
RUN python3 /stages/inventory.py /opt/toolchain > /toolchain.json

# For `python -m builder lock`, which asks for nothing else.
FROM scratch AS inventory-alone
COPY --link --from=inventory /toolchain.json /

# That a base loads them, for `python -m builder rebase`: it has no compiler below it where `models` and `plugins` are given.
FROM scratch AS proof
COPY --link --from=models /root-fs/models /models
COPY --link --from=plugins /plugins-fs/models /models
COPY --link --from=facts /facts.json /inventory.json /

# What a build is judged by before there is an image: `--target artifacts --output DIR`.
FROM proof AS artifacts
COPY --link --from=inventory /toolchain.json /

FROM ${SERVED_ON} AS runtime
COPY --link --from=models /root-fs/ /
COPY --link --from=plugins /plugins-fs/ /
EXPOSE 8000 8001 8002
# The server needs no privilege. By number, so that Kubernetes can tell that it is not root.
USER 1000:1000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --start-interval=1s \
    CMD ["curl", "--fail", "--silent", "--output", "/dev/null", "http://127.0.0.1:8000/v2/health/ready"]
# The backend reads the list of plugins from this flag and from nowhere else. It is what plain docker runs; in the place of
# this line `python -m builder` puts the libraries that were built, and builder.toml's server_args.
CMD ["tritonserver", "--model-repository=/models", "--backend-config=dali,plugin_libs=/models/libcustomcopy.so"]


# ---- a registry, for machines that cannot pull one -----------------------------------------------------------------------

FROM ${DEBIAN_IMAGE} AS registry
RUN --mount=type=cache,id=apt-archives,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,id=apt-lists,target=/var/lib/apt/lists,sharing=locked \
    --mount=type=bind,from=package,source=/embedded/install,target=/run/install --mount=type=bind,from=lock,target=/run/lock \
    --mount=type=secret,id=ca <<EOF
    set -e  # install the registry
    /run/install/apt curl docker-registry
EOF
COPY embedded/registry.yml /etc/docker/registry/config.yml
VOLUME /var/lib/registry
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=500ms \
    CMD ["curl", "--silent", "--output", "/dev/null", "http://127.0.0.1:5000/v2/"]
CMD ["docker-registry", "serve", "/etc/docker/registry/config.yml"]

# `docker build .` stops here.
FROM runtime
