"""Certificates and caches as Go's autocert.DirCache leaves them, by Debian's python3-cryptography."""

import datetime
import os

from .certified import encoded, thumbprint


class Issuer:
    """A CA of our own, with a root and an intermediate certificate."""

    def __init__(self, name="Offline"):
        self.root_key, self.root = self.certificate(f"{name} Root", None, None, is_ca=True)
        self.key, self.intermediate = self.certificate(f"{name} Intermediate", self.root, self.root_key, is_ca=True)

    @staticmethod
    def make_key(rsa=False):
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric import rsa as rsa_keys

        return rsa_keys.generate_private_key(65537, 2048) if rsa else ec.generate_private_key(ec.SECP256R1())

    def certificate(self, name, issuer, issuer_key, is_ca=False, rsa=False, begin=-1, end=60, names=()):
        """Key and certificate; `begin` and `end` are days from now."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        key = self.make_key(rsa)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.datetime.utcnow()
        signer = issuer_key or key
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.subject if issuer else subject).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now + datetime.timedelta(begin))
        builder = builder.not_valid_after(now + datetime.timedelta(end))
        builder = builder.add_extension(x509.BasicConstraints(is_ca, None), True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
        usage = dict.fromkeys(
            ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign",
             "encipher_only", "decipher_only"], False)
        usage["key_cert_sign" if is_ca else "digital_signature"] = True
        builder = builder.add_extension(x509.KeyUsage(**usage), True)
        if not is_ca:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names or [name]]), False)
        return key, builder.sign(signer, hashes.SHA256())

    def leaf(self, name, **options):
        """Key and chain as PEM."""
        key, leaf = self.certificate(name, self.intermediate, self.key, **options)
        return key_pem(key), pem(leaf) + pem(self.intermediate)

    @property
    def root_pem(self):
        return pem(self.root).decode()


def pem(certificate):
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def key_pem(key):
    """EC PRIVATE KEY or RSA PRIVATE KEY, which autocert writes."""
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())


class Cache:
    """A directory that another program has filled."""

    def __init__(self, lab, name):
        self.lab, self.directory = lab, lab.private_directory(name)

    def write(self, name, content):
        path = os.path.join(self.directory, name)
        with open(path, "wb") as file:
            file.write(content)
        self.lab.own(path, 0o600)
        return path

    def account(self, name="acme_account+key"):
        """The thumbprint of a new account key."""
        content = key_pem(Issuer.make_key())
        self.write(name, content)
        return thumbprint(content)

    def token(self, of_thumbprint):
        """A pending challenge of HTTP-01: its token and what is to be answered."""
        token = encoded(os.urandom(32))
        self.write(f"{token}+http-01", f"{token}.{of_thumbprint}".encode())
        return token, f"{token}.{of_thumbprint}"

    def snapshot(self):
        """Name to content, of regular files."""
        result = {}
        for name in os.listdir(self.directory):
            path = os.path.join(self.directory, name)
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    result[name] = file.read()
        return result
