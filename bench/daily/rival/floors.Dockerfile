# After rival/Dockerfile: what the compiler and DALI alone take, by the clock inside, where nothing else is counted.

FROM toolchain AS compiled
COPY cmake /cmake
COPY plugin /src
COPY clock.py /
# The file that has changed, and nothing else: without CMake's questions, and without the linker.
RUN <<END
    set -e
    cmake -S /src -B /objects -G Ninja -DCMAKE_MODULE_PATH=/cmake -DDALI_PLUGIN_CUDA=ON
    python3 /clock.py compile ninja -C /objects CMakeFiles/customcopy.dir/custom_copy.cc.o
END

FROM models AS serialized
COPY clock.py /
RUN --mount=type=bind,from=compiled,source=/floors,target=/compiled <<END
    set -e
    python3 /clock.py serialize python3 -c "import dali; dali.pipeline().serialize(filename='model.dali')"
END

FROM scratch AS floors
COPY --from=compiled /floors/ /
COPY --from=serialized /floors/ /
