# Builds DALI operator plugins against the DALI that will load them. A project's CMakeLists.txt is
#
#   cmake_minimum_required(VERSION 3.25)
#   project(dali_plugins LANGUAGES CXX)
#   find_package(DaliPlugin REQUIRED)
#   add_dali_plugin(NAME SOURCES a.cc GPU_SOURCES b_gpu.cc c.cu)      # one line for each library, libNAME.so
#
# GPU_SOURCES, and .cu files wherever they stand, are left out where there are to be no GPU operators. nvcc reads a file
# once for each architecture, and DALI's headers take it a second or more each time: kernels belong in a .cu file
# without them, and the operator that launches the kernels in a .cc file.
#
# By hand, with this file's folder:
#
#   cmake -S plugin -B build -G Ninja -DCMAKE_MODULE_PATH=builder/stages/cmake -DPython3_EXECUTABLE=/usr/bin/python3
#   cmake --build build
#   cmake --install build --strip --prefix /models        # puts the libraries straight into the prefix
#
# Options:
#   DALI_PLUGIN_CUDA            ON | OFF | AUTO: with GPU operators, without, or as nvcc is found (default AUTO).
#   CMAKE_CUDA_ARCHITECTURES    e.g. "80-real;90": the default covers the server GPUs that nvcc knows.
#   Python3_EXECUTABLE          the Python whose nvidia.dali is compiled against (PYTHONPATH counts).
#   CUDA_INCLUDE_DIR            where cuda_runtime.h is. DALI's headers include it, also for CPU operators. Found
#                               beside nvcc, in CUDA_HOME, or in the wheels nvidia-cuda-runtime (CUDA 13) and
#                               nvidia-cuda-runtime-cu12 of that Python.
#
# nvcc is found on PATH, or named by the environment variable CUDACXX. From wheels it is
# SITE_PACKAGES/nvidia/cu13/bin/nvcc (see CUDA_LINK_DIR below).
set(DALI_PLUGIN_CUDA AUTO CACHE STRING "Build GPU operators: ON, OFF, or AUTO (when nvcc is found)")
set_property(CACHE DALI_PLUGIN_CUDA PROPERTY STRINGS ON OFF AUTO)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")
set(CMAKE_SKIP_RPATH ON)  # DALI has loaded its libraries before it loads a plugin

# --- DALI: asked of the Python that will import it. ---
find_package(Python3 REQUIRED COMPONENTS Interpreter)
execute_process(
  COMMAND "${Python3_EXECUTABLE}" -c
          "import nvidia.dali as d, nvidia.dali.sysconfig as s; print(d.__version__, s.get_include_dir(), s.get_lib_dir(), ' '.join(f for f in s.get_compile_flags() if not f.startswith('-I')), sep='\\n')"
  OUTPUT_VARIABLE dali_answer ERROR_VARIABLE dali_error RESULT_VARIABLE dali_result
  OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT dali_result EQUAL 0)
  message(FATAL_ERROR "${Python3_EXECUTABLE} cannot import nvidia.dali:\n${dali_error}"
                      "Set Python3_EXECUTABLE to a Python that can, or PYTHONPATH to the folder that holds nvidia/dali.")
endif()
string(REPLACE "\n" ";" dali_answer "${dali_answer}")
list(GET dali_answer 0 DALI_VERSION)
list(GET dali_answer 1 DALI_INCLUDE_DIR)
list(GET dali_answer 2 DALI_LIB_DIR)
list(GET dali_answer 3 DALI_COMPILE_FLAGS)
separate_arguments(DALI_COMPILE_FLAGS)
message(STATUS "DALI ${DALI_VERSION} in ${DALI_LIB_DIR}")

# --- CUDA ---
if(DALI_PLUGIN_CUDA STREQUAL "AUTO" OR DALI_PLUGIN_CUDA)
  # nvcc from wheels keeps its libraries in cu13/lib, where it does not look itself (it looks in lib64).
  find_program(nvcc_program nvcc HINTS ENV CUDACXX NO_CACHE)
  if(DEFINED ENV{CUDACXX})
    set(nvcc_program "$ENV{CUDACXX}")
  elseif(CMAKE_CUDA_COMPILER)
    set(nvcc_program "${CMAKE_CUDA_COMPILER}")
  endif()
  if(nvcc_program)
    file(REAL_PATH "${nvcc_program}" nvcc_real)
    cmake_path(GET nvcc_real PARENT_PATH nvcc_bin)
    cmake_path(GET nvcc_bin PARENT_PATH CUDA_TOOLKIT_DIR)
    find_path(CUDA_LINK_DIR libcudart_static.a PATHS "${CUDA_TOOLKIT_DIR}/lib" NO_DEFAULT_PATH
              DOC "Where libcudart_static.a is, if nvcc does not know")
    if(CUDA_LINK_DIR)
      # In the environment, so that CMake's own trial of nvcc links as well.
      set(ENV{LIBRARY_PATH} "${CUDA_LINK_DIR}:$ENV{LIBRARY_PATH}")
    endif()
  endif()
  include(CheckLanguage)
  check_language(CUDA)
endif()
if(DALI_PLUGIN_CUDA STREQUAL "AUTO")
  set(with_cuda ${CMAKE_CUDA_COMPILER})
else()
  set(with_cuda ${DALI_PLUGIN_CUDA})
endif()
if(with_cuda)
  if(NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR "DALI_PLUGIN_CUDA=ON, but no nvcc works here: put it on PATH or name it with CUDACXX.")
  endif()
  set(cuda_architectures_given ${CMAKE_CUDA_ARCHITECTURES})
  if(NOT cuda_architectures_given)
    set(CMAKE_CUDA_ARCHITECTURES 80)  # for the trial only: the default depends on the version found by it
  endif()
  enable_language(CUDA)
  if(NOT cuda_architectures_given)
    # T4, A100, A10 and L4/L40 families, H100/H200, B200; PTX of the newest for those to come.
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
      set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90-real 100-real 120)
    elseif(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 11.8)
      set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90)
    else()
      set(CMAKE_CUDA_ARCHITECTURES 75-real 80)
    endif()
  endif()
  message(STATUS "GPU operators: nvcc ${CMAKE_CUDA_COMPILER_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES}")
else()
  message(STATUS "CPU operators only: GPU_SOURCES and .cu files are left out (DALI_PLUGIN_CUDA=${DALI_PLUGIN_CUDA})")
  if(DALI_PLUGIN_CUDA STREQUAL "AUTO")
    message(WARNING "nvcc was not found: the plugins get no GPU operators. DALI_PLUGIN_CUDA=OFF says that this is meant.")
  endif()
endif()

cmake_path(GET DALI_LIB_DIR PARENT_PATH nvidia_wheels)
execute_process(COMMAND "${Python3_EXECUTABLE}" -c "import nvidia; print(*nvidia.__path__, sep=';')"
                OUTPUT_VARIABLE nvidia_packages OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
set(cuda_include_hints ${CUDA_TOOLKIT_DIR}/include $ENV{CUDA_HOME}/include)
foreach(folder ${nvidia_wheels} ${nvidia_packages})
  list(APPEND cuda_include_hints ${folder}/cu13/include ${folder}/cuda_runtime/include)
endforeach()
find_path(CUDA_INCLUDE_DIR cuda_runtime.h HINTS ${cuda_include_hints} /usr/local/cuda/include)
if(NOT CUDA_INCLUDE_DIR)
  message(FATAL_ERROR "cuda_runtime.h was not found; DALI's headers include it. Set CUDA_INCLUDE_DIR, or install the "
                      "wheels nvidia-cuda-runtime and nvidia-cuda-crt.")
endif()

# add_dali_plugin(NAME SOURCES a.cc ... GPU_SOURCES b_gpu.cc c.cu ...): one plugin library, libNAME.so.
function(add_dali_plugin name)
  cmake_parse_arguments(PARSE_ARGV 1 plugin "" "" "SOURCES;GPU_SOURCES")
  if(with_cuda)
    list(APPEND plugin_SOURCES ${plugin_GPU_SOURCES})
  else()
    list(FILTER plugin_SOURCES EXCLUDE REGEX "\\.cu$")
  endif()
  if(NOT plugin_SOURCES)
    message(FATAL_ERROR "add_dali_plugin(${name}): no source is left. GPU_SOURCES and .cu files are left out where there are "
                        "to be no GPU operators (DALI_PLUGIN_CUDA=${DALI_PLUGIN_CUDA}).")
  endif()
  add_library(${name} MODULE ${plugin_SOURCES})
  if(with_cuda AND plugin_GPU_SOURCES AND NOT "${plugin_SOURCES}" MATCHES "\\.cu(;|$)")
    # Where nvcc compiles nothing, CMake does not link CUDA's runtime.
    target_link_directories(${name} PRIVATE ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES})
    target_link_libraries(${name} PRIVATE cudart_static rt pthread dl)
  endif()
  target_include_directories(${name} SYSTEM PRIVATE "${DALI_INCLUDE_DIR}" "${CUDA_INCLUDE_DIR}")
  # C++20: DALI 2.x asks for it, 1.53 takes it. As a flag, because CMake 3.25 does not know that nvcc has it.
  # -Wno-free-nonheap-object: g++ 12 is wrong about DALI's SmallVector.
  target_compile_options(${name} PRIVATE -std=c++20 ${DALI_COMPILE_FLAGS}
    $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wno-free-nonheap-object>
    $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wno-free-nonheap-object;--threads=0>)

  # The same bytes wherever it is built: no folder of this machine ends up in a message or an assertion.
  set(prefixes "${CMAKE_BINARY_DIR}=build" "${CMAKE_SOURCE_DIR}=plugin"
               "${DALI_INCLUDE_DIR}/dali=dali" "${CUDA_INCLUDE_DIR}=cuda")
  foreach(prefix IN LISTS prefixes)
    target_compile_options(${name} PRIVATE
      $<$<COMPILE_LANGUAGE:CXX>:-ffile-prefix-map=${prefix}>
      $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-ffile-prefix-map=${prefix}>)
  endforeach()

  # Linked to DALI and with no symbol left open: what DALI lacks is found here, and the library records the
  # DALI version that it needs. -z now: what is missing at run time is found at load, not at the first batch.
  target_link_libraries(${name} PRIVATE "${DALI_LIB_DIR}/libdali.so" "${DALI_LIB_DIR}/libdali_core.so")
  target_link_options(${name} PRIVATE LINKER:--no-undefined LINKER:-z,now LINKER:-z,relro LINKER:--exclude-libs,ALL
                      LINKER:--as-needed LINKER:--build-id=sha1 LINKER:--gc-sections $<$<CONFIG:Release>:-s>)
  install(TARGETS ${name} LIBRARY DESTINATION .)
endfunction()

set(DaliPlugin_FOUND TRUE)
