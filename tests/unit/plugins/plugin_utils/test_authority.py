# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The certificate authority, with the real openssl."""

from __future__ import annotations

import datetime
import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.logfleet.shipper.plugins.plugin_utils.authority import (
    Authority,
    AuthorityProblem,
    alternative_names,
    read_certificate,
)

NOW = datetime.datetime.now(datetime.timezone.utc)


def openssl(*arguments: str) -> str:
    return subprocess.run(
        ["openssl", *arguments], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    ).stdout


def request(folder: Path, name: str = "host", subject: str = "/CN=anything") -> str:
    key = folder / (name + ".key")
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key))
    return openssl("req", "-new", "-key", str(key), "-subj", subject)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(str(tmp_path / "pki"))
    assert made.make()
    return made


def test_it_is_made_once_however_many_ask(tmp_path: Path) -> None:
    """And its key is nobody's but its owner's."""
    folder = tmp_path / "inventory" / "pki"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: Authority(str(folder)).make(), range(8)))
    assert sorted(made) == [False] * 7 + [True]
    assert stat.S_IMODE((folder / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "ca.key", "ca.pem"]
    text = openssl("x509", "-noout", "-text", "-in", str(folder / "ca.pem"))
    assert "CA:TRUE, pathlen:0" in text
    assert "Certificate Sign, CRL Sign" in text


def test_half_of_it_is_not_made_whole(authority: Authority) -> None:
    """Another key would cut off all hosts."""
    authority.key.unlink()
    with pytest.raises(AuthorityProblem, match=r"pki/ca\.pem is there and .*pki/ca\.key is not: bring it back"):
        authority.make()


@pytest.mark.parametrize(
    ("names", "printed"),
    [
        (["web1.example.net"], ["DNS:web1.example.net"]),
        (["10.0.0.5", "b_1", "10.0.0.5"], ["DNS:10.0.0.5", "IP Address:10.0.0.5", "DNS:b_1"]),
        (["fd00::a1"], ["DNS:fd00::a1", "IP Address:FD00:0:0:0:0:0:0:A1"]),
        (["a" * 250 + ".de"], ["DNS:" + "a" * 250 + ".de"]),
    ],
)
def test_a_certificate_has_its_names_and_uses(
    authority: Authority, tmp_path: Path, names: list[str], printed: list[str]
) -> None:
    """A name that is longer than a common name may be, and an address, and what is wanted is what is read again."""
    assert alternative_names(names) == printed
    wanted = request(tmp_path)
    certificate = authority.sign(wanted, names, ["client", "server"], 90)
    found = read_certificate(certificate)
    assert found.names == set(printed)
    assert found.usages == {"client", "server"}
    assert abs(found.ends - NOW - datetime.timedelta(days=90)) < datetime.timedelta(hours=2)
    assert found.begins < NOW
    assert authority.renewal(certificate, wanted, names, ["server", "client"]) is None
    text = openssl("x509", "-noout", "-text", "-in", str(write(tmp_path, certificate)))
    assert "CA:FALSE" in text
    assert "Digital Signature" in text


def write(folder: Path, certificate: str) -> Path:
    path = folder / "certificate.pem"
    path.write_text(certificate, encoding="ascii")
    return path


def test_of_a_request_nothing_counts_but_its_key(authority: Authority, tmp_path: Path) -> None:
    """A host that asks for another's name gets its own, and no power to sign."""
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(tmp_path / "key"))
    asked = openssl(
        *("req", "-new", "-key", str(tmp_path / "key"), "-subj", "/CN=web2"),
        *("-addext", "subjectAltName=DNS:web2,email:web2", "-addext", "basicConstraints=CA:TRUE"),
    )
    certificate = authority.sign(asked, ["web1"], ["client"], 90)
    assert "web2" not in openssl("x509", "-noout", "-text", "-in", str(write(tmp_path, certificate)))
    assert read_certificate(certificate).names == {"DNS:web1"}
    assert "CA:TRUE" not in openssl("x509", "-noout", "-text", "-in", str(tmp_path / "certificate.pem"))


def test_serial_numbers_are_random(authority: Authority, tmp_path: Path) -> None:
    """Two hosts in the same instant do not get the same one."""
    asked = request(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        signed = list(pool.map(lambda number: authority.sign(asked, ["w%d" % number], ["client"], 9), range(8)))
    serials = {openssl("x509", "-noout", "-serial", "-in", str(write(tmp_path, pem))) for pem in signed}
    assert len(serials) == 8
    assert all(len(serial.strip().partition("=")[2]) == 32 for serial in serials)
    assert sorted(next(iter(read_certificate(pem).names)) for pem in signed) == ["DNS:w%d" % n for n in range(8)]


def test_a_certificate_is_renewed_in_the_last_third_of_its_life(authority: Authority, tmp_path: Path) -> None:
    """Not before, and for no other reason than what has changed."""
    asked = request(tmp_path)
    begins = NOW - datetime.timedelta(days=10)
    certificate = authority.sign(asked, ["web1"], ["client"], 30, begins=begins)
    assert authority.renewal(certificate, asked, ["web1"], ["client"]) is None
    later = begins + datetime.timedelta(days=20, minutes=1)
    assert str(authority.renewal(certificate, asked, ["web1"], ["client"], later)).startswith("it ends 20")
    assert authority.renewal(certificate, asked, ["web1", "web2"], ["client"]) == "its names change"
    assert authority.renewal(certificate, asked, ["web1"], ["client", "server"]) == "its use changes"
    assert authority.renewal(certificate, request(tmp_path, "other"), ["web1"], ["client"]) == "it is not the key's"
    assert authority.renewal("stuff", asked, ["web1"], ["client"]) == "what is there is no certificate"
    over = authority.sign(asked, ["web1"], ["client"], 5, begins=begins)
    assert str(authority.renewal(over, asked, ["web1"], ["client"])).startswith("it ends ")


def test_the_ca_is_changed_in_three_steps(authority: Authority, tmp_path: Path) -> None:
    """The new one behind the old one: nothing is signed anew. The new key: it is. Without the old one: it stays."""
    asked = request(tmp_path)
    old = authority.sign(asked, ["web1"], ["client"], 90)
    other = Authority(str(tmp_path / "new"))
    other.make()
    first = authority.bundle
    authority.certificates.write_text("a comment\n" + first + other.bundle)
    assert authority.bundle == first + other.bundle
    assert authority.renewal(old, asked, ["web1"], ["client"]) is None

    os.replace(other.key, authority.key)
    assert authority.renewal(old, asked, ["web1"], ["client"]) == "it is not the CA's"
    new = authority.sign(asked, ["web1"], ["client"], 90)
    assert authority.renewal(new, asked, ["web1"], ["client"]) is None
    authority.certificates.write_text(other.bundle)
    assert authority.renewal(new, asked, ["web1"], ["client"]) is None

    authority.certificates.write_text(first)
    with pytest.raises(AuthorityProblem, match=r"no certificate in .*ca\.pem belongs to .*ca\.key"):
        authority.sign(asked, ["web1"], ["client"], 90)


@pytest.mark.parametrize("name", ["a,DNS:b", "a b", "", "x" * 254, "a\nb", "*.example.net"])
def test_a_name_that_would_say_more_is_refused(authority: Authority, tmp_path: Path, name: str) -> None:
    """It would become part of openssl's configuration, or stand for others."""
    with pytest.raises(AuthorityProblem, match="cannot be in a certificate"):
        authority.sign(request(tmp_path), [name], ["client"], 90)
