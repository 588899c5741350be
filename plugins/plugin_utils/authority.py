# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A small certificate authority in a folder of the controller: ca.key, which stays there, and ca.pem.

Everything is done by openssl, with a configuration of its own each time: what the machine's openssl.cnf says does not
matter, and several may sign at once.
"""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import os
import re
import secrets
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

AUTHORITY_DAYS = 3650
# A host's clock may be behind the controller's.
_BACKDATED = datetime.timedelta(hours=1)
_COMMON_NAME_MOST = 64
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,253}\Z")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\n.*?-----END CERTIFICATE-----\n", re.DOTALL)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_USAGES = {
    "client": ("clientAuth", "TLS Web Client Authentication"),
    "server": ("serverAuth", "TLS Web Server Authentication"),
}

_AUTHORITY_CONFIG = """\
[req]
distinguished_name = subject
x509_extensions = extensions
prompt = no
string_mask = utf8only
[subject]
CN = logfleet.shipper
serialNumber = {serial}
[extensions]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""

_SIGNING_CONFIG = """\
[ca]
default_ca = here
[here]
database = {folder}/index
serial = {folder}/serial
new_certs_dir = {folder}
default_md = sha256
policy = any
unique_subject = no
copy_extensions = none
[any]
commonName = supplied
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = {usages}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


class AuthorityProblem(Exception):
    """Why a certificate cannot be had: one sentence."""


@dataclass(frozen=True)
class Certificate:
    """What a certificate says: its names as openssl prints them, DNS:web1; its life; its key, PEM."""

    names: frozenset[str]
    usages: frozenset[str]
    begins: datetime.datetime
    ends: datetime.datetime
    public_key: str

    def in_last_third(self, now: datetime.datetime) -> bool:
        """Whether it is time for another one."""
        return now >= self.ends - (self.ends - self.begins) / 3

    def __str__(self) -> str:
        return "%s, until %s" % (", ".join(sorted(self.names)), self.ends.strftime("%Y-%m-%d %H:%M"))


def alternative_names(names: Sequence[str]) -> list[str]:
    """The names as a certificate has them. An address is there twice, for who looks for it as a name.
    Raises AuthorityProblem."""
    entries = []
    for name in dict.fromkeys(names):
        if _NAME.match(name) is None:
            raise AuthorityProblem(
                "names=%s cannot be in a certificate: use ASCII letters, digits, -, _, ., or an address" % name
            )
        entries.append("DNS:" + name)
        try:
            entries.append("IP Address:" + _as_openssl_prints(name))
        except ValueError:
            continue
    return entries


def _as_openssl_prints(address: str) -> str:
    """Raises ValueError where it is no address."""
    parsed = ipaddress.ip_address(address)
    if parsed.version == 4:
        return str(parsed)
    return ":".join("%X" % int(part, 16) for part in parsed.exploded.split(":"))


class Authority:
    """The authority in a folder. Methods raise AuthorityProblem."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.key = self.folder / "ca.key"
        self.certificates = self.folder / "ca.pem"

    def exists(self) -> bool:
        """Whether it is there. Half of one is none, and nobody's to repair but the operator's."""
        found = [path.exists() for path in (self.key, self.certificates)]
        if any(found) and not all(found):
            there, missing = (self.key, self.certificates) if found[0] else (self.certificates, self.key)
            raise AuthorityProblem(
                "%s is there and %s is not: bring it back, or move the other away for a CA made anew" % (there, missing)
            )
        return all(found)

    def make(self) -> bool:
        """See to it that the authority is there, however many ask at once; whether it was made now."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self.folder / ".lock", "a", encoding="ascii") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self.exists():
                    return False
                self._make()
                return True
        except OSError as error:
            raise AuthorityProblem("%s cannot be written: %s" % (self.folder, error.strerror or error)) from None

    def _make(self) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".new-") as folder:
            config, key, certificate = (Path(folder) / name for name in ("config", "key", "certificate"))
            config.write_text(_AUTHORITY_CONFIG.format(serial=secrets.token_hex(8)), encoding="ascii")
            _make_key(key)
            _openssl(
                *("req", "-x509", "-new", "-sha256", "-days", str(AUTHORITY_DAYS)),
                *("-config", str(config), "-key", str(key), "-out", str(certificate)),
            )
            certificate.chmod(0o644)
            os.replace(key, self.key)
            os.replace(certificate, self.certificates)

    @property
    def bundle(self) -> str:
        """All certificates that hosts are to trust, PEM and nothing else."""
        try:
            found = _PEM.findall(self.certificates.read_text(encoding="utf-8").replace("\r\n", "\n"))
        except (OSError, ValueError) as error:
            raise AuthorityProblem("%s cannot be read: %s" % (self.certificates, error)) from None
        if not found:
            raise AuthorityProblem("%s holds no certificate, PEM: bring it back" % self.certificates)
        return "".join(found)

    def signer(self) -> str:
        """The certificate of ca.key: of several it is the one that has this key."""
        public = _openssl("pkey", "-in", str(self.key), "-pubout")
        for pem in _PEM.findall(self.bundle):
            if read_certificate(pem).public_key == public:
                return str(pem)
        raise AuthorityProblem(
            "no certificate in %s belongs to %s: put it there, or bring the key back" % (self.certificates, self.key)
        )

    def sign(
        self,
        request: str,
        names: Sequence[str],
        usages: Sequence[str],
        days: int,
        begins: datetime.datetime | None = None,
    ) -> str:
        """A certificate for the key of a signing request, PEM. Of the request nothing else counts: whoever wrote it
        has no say in names and usages. It ends with the authority at the latest."""
        signer = self.signer()
        now = datetime.datetime.now(datetime.timezone.utc)
        begins = begins or now - _BACKDATED
        ends = min(begins + datetime.timedelta(days=days), read_certificate(signer).ends)
        if ends <= now and begins > now - datetime.timedelta(days=days):
            raise AuthorityProblem("the CA in %s has ended: make another one" % self.certificates)
        with tempfile.TemporaryDirectory(prefix="shipper-") as name:
            folder = Path(name)
            (folder / "config").write_text(
                _SIGNING_CONFIG.format(
                    folder=folder,
                    usages=", ".join(_USAGES[usage][0] for usage in usages),
                    names=", ".join(entry.replace("IP Address:", "IP:") for entry in alternative_names(names)),
                ),
                encoding="ascii",
            )
            (folder / "index").touch()
            # 127 random bits, and never negative.
            (folder / "serial").write_text("%032X\n" % (secrets.randbits(127) | 1 << 120), encoding="ascii")
            (folder / "signer").write_text(signer, encoding="ascii")
            (folder / "request").write_text(request, encoding="ascii")
            _openssl(
                *("ca", "-batch", "-notext", "-config", str(folder / "config"), "-extensions", "extensions"),
                *("-cert", str(folder / "signer"), "-keyfile", str(self.key), "-in", str(folder / "request")),
                # The name that counts is the alternative one; this has room for 64 bytes.
                *("-subj", "/CN=" + names[0][:_COMMON_NAME_MOST], "-out", str(folder / "certificate")),
                *("-startdate", _stamp(begins), "-enddate", _stamp(ends)),
            )
            return (folder / "certificate").read_text(encoding="ascii")

    def renewal(
        self,
        certificate: str,
        request: str | None,
        names: Sequence[str],
        usages: Sequence[str],
        now: datetime.datetime | None = None,
    ) -> str | None:
        """Why a certificate must be made anew, in a few words; None where it need not. request is of the key that lies
        beside it."""
        try:
            found = read_certificate(certificate)
        except AuthorityProblem:
            return "what is there is no certificate"
        now = now or datetime.datetime.now(datetime.timezone.utc)
        if found.names != frozenset(alternative_names(names)):
            return "its names change"
        if found.usages != frozenset(usages):
            return "its use changes"
        if request is not None and found.public_key != _openssl("req", "-noout", "-pubkey", stdin=request):
            return "it is not the key's"
        if not self._signed(certificate):
            return "it is not the CA's"
        if found.in_last_third(now):
            return "it ends %s" % found.ends.strftime("%Y-%m-%d")
        return None

    def _signed(self, certificate: str) -> bool:
        with tempfile.TemporaryDirectory(prefix="shipper-") as folder:
            signer, signed = Path(folder) / "signer", Path(folder) / "signed"
            signer.write_text(self.signer(), encoding="ascii")
            signed.write_text(certificate, encoding="ascii")
            # Whether it is still valid is looked at elsewhere.
            command = ["openssl", "verify", "-no_check_time", "-CAfile", str(signer), str(signed)]
            return subprocess.run(command, capture_output=True, check=False).returncode == 0


def read_certificate(pem: str) -> Certificate:
    """What the first certificate in a text says. Raises AuthorityProblem."""
    text = _openssl("x509", "-noout", "-text", "-pubkey", stdin=pem)
    printed, _begin, rest = text.partition("-----BEGIN PUBLIC KEY-----")
    public, end, after = rest.partition("-----END PUBLIC KEY-----\n")
    printed += after
    usages = _extension(printed, "X509v3 Extended Key Usage")
    return Certificate(
        names=frozenset(_extension(printed, "X509v3 Subject Alternative Name")),
        usages=frozenset(usage for usage, (_short, long) in _USAGES.items() if long in usages),
        begins=_date(printed, "Not Before"),
        ends=_date(printed, "Not After "),
        public_key=_begin + public + end,
    )


def _extension(printed: str, name: str) -> list[str]:
    match = re.search(r"%s:(?: critical)? *\n *(.*)\n" % re.escape(name), printed)
    return [entry.strip() for entry in match.group(1).split(",")] if match else []


def _date(printed: str, name: str) -> datetime.datetime:
    match = re.search(r"%s *: (\w{3}) +(\d+) (\d+:\d+:\d+) (\d+) GMT" % name.strip(), printed)
    if match is None:
        raise AuthorityProblem("a certificate's dates cannot be read")
    month = _MONTHS.index(match.group(1)) + 1
    clock = [int(part) for part in match.group(3).split(":")]
    return datetime.datetime(int(match.group(4)), month, int(match.group(2)), *clock, tzinfo=datetime.timezone.utc)


def _stamp(time: datetime.datetime) -> str:
    return time.astimezone(datetime.timezone.utc).strftime("%Y%m%d%H%M%SZ")


def _make_key(path: Path) -> None:
    pem = _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(pem)


def _openssl(*arguments: str, stdin: str = "") -> str:
    try:
        done = subprocess.run(
            ["openssl", *arguments], input=stdin, capture_output=True, check=False, encoding="utf-8", errors="replace"
        )
    except FileNotFoundError:
        raise AuthorityProblem("the controller has no openssl, which makes the certificates: install it") from None
    if done.returncode != 0:
        raise AuthorityProblem("openssl %s failed: %s" % (arguments[0], _reason(done.stderr)))
    return done.stdout


def _reason(printed: str) -> str:
    """openssl prints many lines; the first that looks like an error says the most."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "it said nothing")
