"""A certificate authority of the tests' own: whose word is believed is what a test decides."""

import ssl
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


class Certified(StrEnum):
    """What a server's certificate is worth, for the names that it bears."""

    GOOD = "good"
    EXPIRED = "expired"
    NOT_YET = "not yet valid"
    SELF_SIGNED = "self-signed"


class Authority:
    """Makes servers' contexts. *folder* is where OpenSSL reads their keys from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("Greenroom's tests")
        own = _Paper(subject=self._name, issuer=self._name, key=self._key, starts=-DAY)
        self._certificate = own.signed(self._key, is_authority=True)

    def trusting(self) -> ssl.SSLContext:
        """A client's context as strict as the default one, which believes this authority alone."""
        pem = self._certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
        return ssl.create_default_context(cadata=pem)

    def serving(
        self, hosts: Iterable[str], certified: Certified = Certified.GOOD
    ) -> ssl.SSLContext:
        """A server's context with a certificate for *hosts*, names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        alone = certified is Certified.SELF_SIGNED
        paper = _Paper(
            subject=(subject := _named("origin")),
            issuer=subject if alone else self._name,
            key=key,
            starts={Certified.EXPIRED: -3 * DAY, Certified.NOT_YET: DAY}.get(certified, -DAY),
            hosts=tuple(hosts),
        )
        certificate = paper.signed(key if alone else self._key)
        file = self._folder / f"{certificate.serial_number:x}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


class _Paper:
    """A certificate for two days, before anybody has signed it."""

    def __init__(
        self,
        *,
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        starts: timedelta,
        hosts: tuple[str, ...] = (),
    ) -> None:
        now = datetime.now(UTC)
        self._key = key
        self._hosts = hosts
        self._builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + starts)
            .not_valid_after(now + starts + 2 * DAY)
        )

    def signed(
        self, by: ec.EllipticCurvePrivateKey, *, is_authority: bool = False
    ) -> x509.Certificate:
        """With the extensions that Python 3.13 insists on (X509_V_FLAG_X509_STRICT)."""
        builder = self._builder.add_extension(
            x509.BasicConstraints(ca=is_authority, path_length=None), critical=True
        )
        builder = builder.add_extension(_usage(signs=is_authority), critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
        )
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()),
            critical=False,
        )
        if self._hosts:
            names = x509.SubjectAlternativeName([_general(host) for host in self._hosts])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(by, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
