"""What a build needs of this machine's network, given as BuildKit secrets, so that no layer and no log keeps it."""

from __future__ import annotations

import configparser
import io
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

PIP_VARIABLE = "TRITON_DALI_BUILDER_PIP_CONF"
_CA_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_CA_DEFAULT = "/etc/ssl/certs/ca-certificates.crt"
_PIP_FILES = ("/etc/pip.conf", "/etc/xdg/pip/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
# The options that say where packages come from. Others speak of folders that a build does not have.
_PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "timeout", "retries")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True)
class NetworkSecrets:
    """Secrets as buildx takes them, and the environment variables that hold their values."""

    secrets: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    proxies: list[str] = field(default_factory=list)
    """Names of the proxy variables that are set; BuildKit keeps their values out of the image."""


def from_machine() -> NetworkSecrets:
    """The CA bundle, the package index and the proxies that this machine is set up with."""
    found = NetworkSecrets(proxies=[name for name in PROXIES if os.environ.get(name)])
    own = ssl.get_default_verify_paths()
    for candidate in (*(os.environ.get(name) for name in _CA_VARIABLES), own.cafile, own.openssl_cafile, _CA_DEFAULT):
        if candidate and Path(candidate).is_file():
            found.secrets.append(f"id=ca,src={candidate}")
            break
    if conf := pip_conf():
        found.secrets.append(f"id=pip,env={PIP_VARIABLE}")
        found.environment[PIP_VARIABLE] = conf
    return found


def pip_conf() -> str:
    """A pip.conf with this machine's package index; empty where pip has no settings of that kind."""
    parser = configparser.RawConfigParser()
    own = os.environ.get("PIP_CONFIG_FILE")
    # As for pip itself, its own variable comes on top of the usual files, and /dev/null instead of them.
    files = [] if own == os.devnull else [Path(name).expanduser() for name in (*_PIP_FILES, *filter(None, [own]))]
    try:
        parser.read(files, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        parser = configparser.RawConfigParser()  # pip itself will say what is wrong with it
    values: dict[str, str] = {}
    for option in _PIP_OPTIONS:
        for section in ("global", "install"):
            if parser.has_option(section, option):
                values[option] = parser.get(section, option)
        variable = "PIP_" + option.upper().replace("-", "_")
        if os.environ.get(variable):
            values[option] = os.environ[variable]
    # A build cannot see this machine's folders.
    for option in ("index-url", "extra-index-url"):
        urls = [url for url in values.get(option, "").split() if url.startswith(("http://", "https://"))]
        values.pop(option, None)
        if urls:
            values[option] = "\n".join(urls)
    if not values:
        return ""
    written = configparser.RawConfigParser()
    written["global"] = values
    text = io.StringIO()
    written.write(text)
    return text.getvalue()
