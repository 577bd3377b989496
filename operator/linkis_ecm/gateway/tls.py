"""TLS of the gateway's port: the certificate and its key from two files, and again when the files change.

A changed pair counts for every connection from then on, without a restart. A pair that cannot be used leaves the one
before. Must not know settings and metrics, and must not keep the key's bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

log = logging.getLogger(__name__)

CERT_SETTING = "ECM_TLS_CERT_FILE"
KEY_SETTING = "ECM_TLS_KEY_FILE"
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
# Seconds between two looks at the files: a kubelet takes about a minute to bring a changed Secret.
CHECK_SECONDS = 10.0
# A Secret's own limit.
MAX_FILE_BYTES = 1 << 20


class CertificateError(ValueError):
    """The pair cannot be used; the text is one sentence with the setting and the remedy."""


class ServerCertificate:
    """A certificate chain and its key, in PEM form.

    `context` is for the listening socket. `on_reload` is called with "success" or "failure" for each changed pair;
    `now` gives an aware time. Raises CertificateError where the first pair cannot be used.
    """

    def __init__(
        self,
        cert_file: str,
        key_file: str,
        *,
        minimum: str = "1.2",
        on_reload: Callable[[str], object] = lambda _: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._minimum = VERSIONS[minimum]
        self._on_reload = on_reload
        self._now = now
        chain, self._mark = self._read()
        self.context, self._begins, self._expires = self._load(chain)
        self._current = self.context
        # A handshake takes whichever context is current when it begins. The alternative, load_cert_chain on the context
        # in use, first puts the certificate and then the key: of a bad pair the first half would stay.
        self.context.sni_callback = self._use_current

    @property
    def expires(self) -> float:
        """When the certificate in use expires, in seconds since 1970."""
        return self._expires.timestamp()

    @property
    def begins(self) -> float:
        """From when the certificate in use is valid, in seconds since 1970: with `expires` it has its lifetime."""
        return self._begins.timestamp()

    async def watch(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Look at the files every CHECK_SECONDS, for ever."""
        while True:
            await sleep(CHECK_SECONDS)
            try:
                await asyncio.to_thread(self.refresh)
            except Exception:
                # A bug here must not be the end of all renewals.
                log.exception("the files of %s could not be looked at", CERT_SETTING)

    def refresh(self) -> None:
        """Take the pair that the files have now, where it is another one. Reads files, so it is for a thread."""
        try:
            chain, mark = self._read()
        except CertificateError as error:
            self._reject(str(error), error)
            return
        if mark == self._mark:
            return
        try:
            context, begins, expires = self._load(chain)
        except CertificateError as error:
            # The files may have changed between the two reads: then the next look decides.
            if self._is_still(mark):
                self._reject(mark, error)
            return
        self._current, self._begins, self._expires, self._mark = context, begins, expires, mark
        log.info("the certificate of %s is in use; it expires %s", CERT_SETTING, expires.isoformat())
        self._on_reload("success")

    def _use_current(self, connection: ssl.SSLObject | ssl.SSLSocket, _: str | None, __: ssl.SSLContext) -> None:
        if connection.context is not self._current:
            connection.context = self._current

    def _reject(self, mark: str, error: CertificateError) -> None:
        """Say once of each pair that it is not used."""
        if mark == self._mark:
            return
        self._mark = mark
        log.error("%s; the certificate before it stays in use", error)
        self._on_reload("failure")

    def _is_still(self, mark: str) -> bool:
        try:
            return self._read()[1] == mark
        except CertificateError:
            return False

    def _read(self) -> tuple[bytes, str]:
        """The certificates, and a fingerprint of both files. Raises CertificateError."""
        chain = _content(CERT_SETTING, self._cert_file)
        key = _content(KEY_SETTING, self._key_file)
        return chain, hashlib.sha256(hashlib.sha256(chain).digest() + key).hexdigest()

    def _load(self, chain: bytes) -> tuple[ssl.SSLContext, datetime, datetime]:
        """A context of the files' pair, from when its certificate is valid, and until when. Raises CertificateError."""
        try:
            certificate = x509.load_pem_x509_certificates(chain)[0]
            begins, expires = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        except (ValueError, x509.InvalidVersion):
            raise CertificateError(
                f"{CERT_SETTING} {self._cert_file} has no certificate in PEM form: write the server's certificate and"
                " after it those of its authorities"
            ) from None
        if expires <= self._now():
            raise CertificateError(
                f"{CERT_SETTING} {self._cert_file} has a certificate that expired {expires:%Y-%m-%d %H:%M} UTC:"
                " renew it"
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._minimum
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Without a function OpenSSL would ask the terminal for an encrypted key's password, and wait.
            context.load_cert_chain(self._cert_file, self._key_file, password=self._no_password)
        except ssl.SSLError as error:
            raise CertificateError(self._sentence(error)) from None
        except OSError as error:
            raise CertificateError(f"{KEY_SETTING} {self._key_file} cannot be read ({error.strerror})") from None
        return context, begins, expires

    def _no_password(self) -> str:
        raise CertificateError(f"{KEY_SETTING} {self._key_file} is encrypted: write the key without a password")

    def _sentence(self, error: ssl.SSLError) -> str:
        if error.reason == "KEY_VALUES_MISMATCH":
            return (
                f"{KEY_SETTING} {self._key_file} is not the key of the certificate in {CERT_SETTING}: take both from"
                " one Secret"
            )
        why = f" ({error.reason})" if error.reason else ""
        return (
            f"{KEY_SETTING} {self._key_file} has no key in PEM form that fits the certificate{why}: write the"
            " certificate's private key, of 2048 bits (RSA) or 256 bits (ECDSA)"
        )


def _content(setting: str, path: str) -> bytes:
    """A file, bounded. Raises CertificateError."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CertificateError(f"{setting} {path} cannot be read ({error.strerror}): mount the Secret") from None
    if not content or len(content) > MAX_FILE_BYTES:
        what = "is empty" if not content else f"has more than {MAX_FILE_BYTES} bytes"
        raise CertificateError(f"{setting} {path} {what}: mount the Secret of a certificate")
    return content
