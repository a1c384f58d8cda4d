from __future__ import annotations

from pathlib import Path

import pytest

from builder import cmake
from builder.artifacts import Operator
from builder.checks.plugins import check_sources

SHIPPED = Path(__file__).resolve().parents[2] / "plugin"
HEAD = "cmake_minimum_required(VERSION 3.25)\nproject(p LANGUAGES CXX)\nfind_package(DaliPlugin REQUIRED)\n"


def plugin(folder: Path, text: str, **files: str) -> Path:
    """A plugin folder; `a__cc="..."` is a file a.cc, `sub__CMakeLists__txt` one in sub/."""
    (folder / "CMakeLists.txt").write_text(HEAD + text)
    for name, content in files.items():
        path = folder / name.replace("__CMakeLists__", "/CMakeLists.").replace("__", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return folder


def names(folder: Path) -> list[str] | None:
    declared = cmake.libraries(folder)
    return None if declared is None else [each.name for each in declared]


def test_the_shipped_plugin() -> None:
    declared = cmake.libraries(SHIPPED)
    assert declared is not None
    (library,) = declared
    assert library.path == "/models/libcustomcopy.so"
    gpu_sources = (SHIPPED / "custom_copy_gpu.cc", SHIPPED / "custom_copy.cu")
    assert library.sources == (SHIPPED / "custom_copy.cc", *gpu_sources)
    assert library.gpu_sources == set(gpu_sources)
    line = (SHIPPED / "CMakeLists.txt").read_text().splitlines()[library.line - 1]
    assert line.startswith("add_dali_plugin(customcopy ")
    assert cmake.operators(SHIPPED, declared) == {library.path: (Operator(name="CustomCopy", devices=("cpu", "gpu")),)}
    assert cmake.operators(SHIPPED, declared, cuda=False) == {
        library.path: (Operator(name="CustomCopy", devices=("cpu",)),)
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("add_dali_plugin(a SOURCES a.cc)\nAdd_Dali_Plugin(b SOURCES b.cc)", ["a", "b"]),
        ('add_dali_plugin(\n  "a"  # a comment\n  SOURCES a.cc\n)', ["a"]),
        ("# add_dali_plugin(a SOURCES a.cc)\n#[[\nadd_dali_plugin(b SOURCES b.cc)\n]]", []),
        ("if(X)\n  message(STATUS x)\nendif()\nadd_dali_plugin(a SOURCES a.cc)", ["a"]),
        ("add_library(common STATIC c.cc)\nadd_dali_plugin(a SOURCES a.cc)", ["a"]),
        ("function(add_dali_plugin n)\n  add_library(${n} MODULE)\nendfunction()\nadd_dali_plugin(a)", ["a"]),
        ("function(other n)\n  message(${n})\nendfunction()\nother(x)\nadd_dali_plugin(a SOURCES a.cc)", ["a"]),
        ("include(CheckLanguage)\nadd_dali_plugin(a SOURCES a.cc)", ["a"]),
        ("set_target_properties(a PROPERTIES CXX_STANDARD 20)\nadd_dali_plugin(a SOURCES a.cc)", ["a"]),
        # From here on only CMake can tell.
        ("set(N a)\nadd_dali_plugin(${N} SOURCES a.cc)", None),
        ("add_dali_plugin()", None),
        ("foreach(n a b)\n  add_dali_plugin(${n} SOURCES ${n}.cc)\nendforeach()", None),
        ("if(X)\n  add_dali_plugin(a SOURCES a.cc)\nendif()", None),
        ("if(X)\nelse()\n  if(Y)\n    add_dali_plugin(a SOURCES a.cc)\n  endif()\nendif()", None),
        ("if(X)\n  add_subdirectory(sub)\nendif()", None),
        ("if(X)\n  include(${Y})\nendif()", None),
        ("function(mine n)\n  add_dali_plugin(${n} SOURCES a.cc)\nendfunction()\nmine(a)", None),
        ("macro(one n)\n  add_library(${n} SHARED)\nendmacro()\nmacro(two n)\n  one(${n})\nendmacro()\ntwo(a)", None),
        ("add_library(a MODULE a.cc)", None),
        ("add_dali_plugin(a SOURCES a.cc)\nset_target_properties(a PROPERTIES OUTPUT_NAME b)", None),
        ("set(CMAKE_SHARED_MODULE_PREFIX plugin)\nadd_dali_plugin(a SOURCES a.cc)", None),
        ("add_dali_plugin(a SOURCES a.cc)\ninstall(FILES libb.so DESTINATION .)", None),
        ("return()\nadd_dali_plugin(a SOURCES a.cc)", None),
        ("add_subdirectory(nowhere)", None),
        ("add_subdirectory(${X})", None),
        ("include(CMakeLists.txt)", None),
        ("add_dali_plugin(a SOURCES a.cc", None),
        ("if(X)", None),
        (")", None),
    ],
)
def test_the_libraries_that_cmake_would_make(tmp_path: Path, text: str, found: list[str] | None) -> None:
    assert names(plugin(tmp_path, text)) == found


def test_no_cmake_no_libraries(tmp_path: Path) -> None:
    assert cmake.libraries(tmp_path) == ()
    assert cmake.libraries(tmp_path / "nowhere") == ()


def test_a_file_that_is_no_text_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_bytes(b"\xff\xfe\0")
    assert cmake.libraries(tmp_path) is None


def test_subdirectories_and_included_files_have_places_of_their_own(tmp_path: Path) -> None:
    folder = plugin(
        tmp_path,
        "add_subdirectory(sub)\ninclude(${CMAKE_CURRENT_LIST_DIR}/more.cmake)\n",
        sub__CMakeLists__txt="\nadd_dali_plugin(a SOURCES a.cc ${CMAKE_SOURCE_DIR}/common.cc)",
        more__cmake="add_dali_plugin(b SOURCES b.cc)",
    )
    declared = cmake.libraries(folder)
    assert declared is not None
    assert [(each.name, each.file, each.line, each.sources) for each in declared] == [
        ("a", folder / "sub" / "CMakeLists.txt", 2, (folder / "sub" / "a.cc", folder / "common.cc")),
        ("b", folder / "more.cmake", 1, (folder / "b.cc",)),
    ]


@pytest.mark.parametrize(
    "sources",
    [
        "SOURCES ${SOURCES}",
        "SOURCES a.cc $<TARGET_OBJECTS:x>",
        'SOURCES "a.cc;b.cu"',
        "SOURCES a.cc GPU_SOURCES ${SOURCES}",
        "GPU_SOURCES ${SOURCES} SOURCES a.cc",
        "a.cc",
        "a.cc GPU_SOURCES a.cc",
        "",
    ],
)
def test_sources_that_only_cmake_knows(tmp_path: Path, sources: str) -> None:
    folder = plugin(tmp_path, f"add_dali_plugin(a {sources})", a__cc="")
    declared = cmake.libraries(folder)
    assert declared is not None
    assert declared[0].sources is None
    assert cmake.operators(folder, declared) == {"/models/liba.so": None}


def operators(folder: Path, *, cuda: bool = True) -> dict[str, tuple[str, ...]] | None:
    declared = cmake.libraries(folder)
    assert declared is not None
    (found,) = cmake.operators(folder, declared, cuda=cuda).values()
    return None if found is None else {each.name: each.devices for each in found}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("", {}),
        ("DALI_REGISTER_OPERATOR(A, ns::A<::dali::CPUBackend>, ::dali::CPU);", {"A": ("cpu",)}),
        (
            "DALI_REGISTER_OPERATOR(A, A<X, Y>, CPU);\nDALI_REGISTER_OPERATOR(B, B, dali::Mixed)",
            {"A": ("cpu",), "B": ("mixed",)},
        ),
        ("DALI_REGISTER_OPERATOR( my__A ,\n  ns::A,\n  dali::GPU );", {"my__A": ("gpu",)}),
        ("// DALI_REGISTER_OPERATOR(A, A, CPU);\n/* DALI_REGISTER_OPERATOR(B, B, CPU); */", {}),
        ('const char *s = "/*";\nDALI_REGISTER_OPERATOR(A, A, CPU);\nconst char *t = "*/";', {"A": ("cpu",)}),
        ("#ifdef X\nint x;\n#endif\nDALI_REGISTER_OPERATOR(A, A, CPU);", {"A": ("cpu",)}),
        # From here on only the compiler can tell.
        ("#ifdef X\nDALI_REGISTER_OPERATOR(A, A, CPU);\n#endif", None),
        ("#define REGISTER(N) \\\n  DALI_REGISTER_OPERATOR(N, N, CPU)\nREGISTER(A)", None),
        ('#include "other.cc"\n', None),
        ("DALI_REGISTER_OPERATOR(A, A, DEVICE);", None),
        ("DALI_REGISTER_OPERATOR\n", None),
    ],
)
def test_the_operators_in_a_source(tmp_path: Path, source: str, found: dict[str, tuple[str, ...]] | None) -> None:
    assert operators(plugin(tmp_path, "add_dali_plugin(a SOURCES a.cc)", a__cc=source)) == found


def test_a_source_that_is_not_there_tells_nothing(tmp_path: Path) -> None:
    assert operators(plugin(tmp_path, "add_dali_plugin(a SOURCES a.cc)")) is None


def test_a_header_that_registers_tells_nothing(tmp_path: Path) -> None:
    register = "DALI_REGISTER_OPERATOR(A, A, CPU);"
    folder = plugin(tmp_path, "add_dali_plugin(a SOURCES a.cc)", a__cc='#include "a.h"', a__h=register)
    assert operators(folder) is None


def test_one_operator_of_two_sources(tmp_path: Path) -> None:
    folder = plugin(
        tmp_path,
        "add_dali_plugin(a SOURCES a.cu a.cc)",
        a__cc="DALI_REGISTER_OPERATOR(A, A, CPU);",
        a__cu="DALI_REGISTER_OPERATOR(A, A, GPU);\nDALI_REGISTER_OPERATOR(OnGpu, B, GPU);",
    )
    assert operators(folder) == {"A": ("cpu", "gpu"), "OnGpu": ("gpu",)}
    assert operators(folder, cuda=False) == {"A": ("cpu",)}


@pytest.mark.parametrize(
    ("sources", "without_cuda"),
    [
        ("SOURCES a.cc GPU_SOURCES b.cc c.cu", ("cpu",)),
        ("GPU_SOURCES c.cu b.cc SOURCES a.cc", ("cpu",)),
        ("GPU_SOURCES b.cc SOURCES c.cu a.cc", ("cpu",)),
        ("GPU_SOURCES b.cc SOURCES a.cc GPU_SOURCES c.cu", ("cpu",)),
        # CMake makes one of what is named twice.
        ("SOURCES a.cc b.cc GPU_SOURCES b.cc c.cu", ("cpu", "gpu")),
        ("GPU_SOURCES a.cc b.cc c.cu", ()),
    ],
)
def test_sources_for_gpus_alone(tmp_path: Path, sources: str, without_cuda: tuple[str, ...]) -> None:
    folder = plugin(
        tmp_path,
        f"add_dali_plugin(a {sources})",
        a__cc="DALI_REGISTER_OPERATOR(A, A, CPU);",
        b__cc="DALI_REGISTER_OPERATOR(A, A, GPU);",
        c__cu="DALI_REGISTER_OPERATOR(A, A, Mixed);",
    )
    assert operators(folder) == {"A": ("cpu", "gpu", "mixed")}
    assert operators(folder, cuda=False) == ({"A": without_cuda} if without_cuda else {})


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("add_dali_plugin(a SOURCES a.cc)\nif(X)\n  message(x)\nendif()", False),
        ("function(mine n)\n  message(${n})\nendfunction()\nmine(x)", False),
        ("file(GLOB found *.cc)", False),
        ('include(CheckLanguage)\ncheck_language(CUDA)\nset(X "add_custom_command(")', False),
        ("configure_file(a.cc.in ${CMAKE_CURRENT_SOURCE_DIR}/a.cc)", True),
        ("add_custom_command(OUTPUT a.cc COMMAND x)", True),
        ("file(WRITE a.cc x)", True),
        ("file(GENERATE OUTPUT a.cc CONTENT x)", True),
        ("execute_process(COMMAND python3 make.py)", True),
        ("function(mine n)\n  execute_process(COMMAND ${n})\nendfunction()\nmine(x)", True),
        ("set_source_files_properties(a.cc PROPERTIES GENERATED TRUE)", True),
        ("FetchContent_MakeAvailable(other)", True),
        ("if(", True),
    ],
)
def test_sources_that_cmake_may_make(tmp_path: Path, text: str, may: bool) -> None:
    assert cmake.may_make_sources(plugin(tmp_path, text)) is may


def missing(folder: Path, *, cuda: bool = True) -> list[tuple[str, str]]:
    return [(str(each.place), each.what) for each in check_sources(folder.parent, folder, cuda=cuda)]


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "plugin"
    folder.mkdir()
    plugin(folder, "add_dali_plugin(a SOURCES my_blurr.cc on.cu ${X} sub/b.cc)", my_blur__cc="", on__cu="")
    assert missing(folder) == [
        (
            "plugin/CMakeLists.txt:4",
            "library a is made of plugin/my_blurr.cc, which does not exist; did you mean my_blur.cc?",
        ),
        ("plugin/CMakeLists.txt:4", "library a is made of plugin/sub/b.cc, which does not exist"),
    ]
    (folder / "on.cu").unlink()
    assert len(missing(folder)) == 3
    assert len(missing(folder, cuda=False)) == 2
    plugin(folder, "add_dali_plugin(a GPU_SOURCES my_gpuu.cc ${X} SOURCES my_blurr.cc)", my_gpu__cc="")
    assert [what.partition(";")[2] for _, what in missing(folder)] == [
        " did you mean my_blur.cc?",
        " did you mean my_gpu.cc?",
    ]
    assert [what.partition(";")[2] for _, what in missing(folder, cuda=False)] == [" did you mean my_blur.cc?"]
    plugin(folder, "add_custom_command(OUTPUT x)\nadd_dali_plugin(a SOURCES my_blurr.cc)")
    assert missing(folder) == []


@pytest.mark.parametrize("source", ["${CMAKE_BINARY_DIR}/a.cc", "/usr/include/a.cc", "../a.cc", '"a.cc;b.cc"', "a"])
def test_nothing_is_said_of_a_source_that_may_be_elsewhere(tmp_path: Path, source: str) -> None:
    folder = tmp_path / "plugin"
    folder.mkdir()
    assert missing(plugin(folder, f"add_dali_plugin(a SOURCES {source})")) == []


def test_no_plugin_lacks_no_source(tmp_path: Path) -> None:
    assert missing(tmp_path / "plugin") == []
    assert missing(SHIPPED) == []
