from __future__ import annotations

import configparser
import os
import ssl
from pathlib import Path
from types import SimpleNamespace

import pytest

from builder.docker import secrets
from builder.docker.secrets import PIP_VARIABLE, PROXIES, from_machine, pip_conf


@pytest.fixture(autouse=True)
def _bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without proxies, certificates and pip settings."""
    for name in [*PROXIES, *secrets._CA_VARIABLES, *(name for name in os.environ if name.startswith("PIP_"))]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(secrets, "_CA_DEFAULT", "/nonexistent/ca.crt")
    python_s_own(monkeypatch, cafile=None, openssl_cafile="/nonexistent/cert.pem")
    monkeypatch.setattr(secrets, "_PIP_FILES", ())


def python_s_own(monkeypatch: pytest.MonkeyPatch, cafile: Path | None, openssl_cafile: Path | str) -> None:
    """Where Python would look for certificates."""
    paths = SimpleNamespace(cafile=cafile and str(cafile), openssl_cafile=str(openssl_cafile))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)


def pip_file(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> None:
    path.write_text(text)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(path))


def read_back() -> dict[str, list[str]]:
    """What pip will read: each option's words."""
    parser = configparser.RawConfigParser()
    parser.read_string(pip_conf())
    return {option: value.split() for option, value in parser.items("global")} if parser.sections() else {}


def test_a_bare_machine_has_no_secrets() -> None:
    found = from_machine()
    assert (found.secrets, found.environment, found.proxies) == ([], {}, [])


def test_the_first_certificate_file_that_exists_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("pip.crt", "ssl.crt", "own.crt", "openssl.crt", "default.crt"):
        (tmp_path / name).touch()
    monkeypatch.setattr(secrets, "_CA_DEFAULT", str(tmp_path / "default.crt"))
    assert from_machine().secrets == [f"id=ca,src={tmp_path}/default.crt"]
    python_s_own(monkeypatch, None, tmp_path / "openssl.crt")
    assert from_machine().secrets == [f"id=ca,src={tmp_path}/openssl.crt"]
    python_s_own(monkeypatch, tmp_path / "own.crt", tmp_path / "openssl.crt")
    assert from_machine().secrets == [f"id=ca,src={tmp_path}/own.crt"]
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ssl.crt"))
    assert from_machine().secrets == [f"id=ca,src={tmp_path}/ssl.crt"]
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "gone.crt"))
    assert from_machine().secrets == [f"id=ca,src={tmp_path}/ssl.crt"]
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "pip.crt"))
    assert from_machine().secrets == [f"id=ca,src={tmp_path}/pip.crt"]


def test_a_package_index_is_a_secret_by_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:hunter2@index.example.com/simple")
    found = from_machine()
    assert found.secrets == [f"id=pip,env={PIP_VARIABLE}"]
    assert "hunter2" in found.environment[PIP_VARIABLE]


def test_proxies_are_known_by_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:hunter2@proxy.example.com")
    monkeypatch.setenv("no_proxy", "localhost")
    monkeypatch.setenv("http_proxy", "")
    found = from_machine()
    assert found.proxies == ["HTTPS_PROXY", "no_proxy"]
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("[global]\nindex-url = https://i.example/simple\n", {"index-url": ["https://i.example/simple"]}),
        ("[global]\ntimeout = 9\nretries = 7\n", {"timeout": ["9"], "retries": ["7"]}),
        ("[global]\ntarget = /opt/x\ncache-dir = /var/x\nfind-links = /wheels\ncert = /x.crt\n", {}),
        ("[global]\nindex-url = file:///srv/index\n", {}),
        (
            "[global]\nextra-index-url =\n  https://a.example/\n  file:///srv\n  http://b.example/\n",
            {"extra-index-url": ["https://a.example/", "http://b.example/"]},
        ),
        (
            "[global]\ntrusted-host =\n    a.example\n    b.example\n",
            {"trusted-host": ["a.example", "b.example"]},
        ),
        ("[global]\ntimeout = 1\n[install]\ntimeout = 2\n", {"timeout": ["2"]}),
        ("[list]\ntimeout = 1\n", {}),
        ("[global]\nindex-url = https://u:p%40w@i.example/\n", {"index-url": ["https://u:p%40w@i.example/"]}),
        ("no section\n", {}),
    ],
)
def test_pip_s_settings_are_kept_as_far_as_a_build_can_use_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, options: dict[str, list[str]]
) -> None:
    pip_file(monkeypatch, tmp_path / "pip.conf", text)
    assert read_back() == options


def test_a_variable_overrides_pip_s_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pip_file(monkeypatch, tmp_path / "pip.conf", "[global]\nindex-url = https://file.example/\n")
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable.example/")
    assert read_back() == {"index-url": ["https://variable.example/"]}


def test_a_user_s_own_file_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(secrets, "_PIP_FILES", ("~/pip.conf",))
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://own.example/\n")
    assert read_back() == {"index-url": ["https://own.example/"]}
