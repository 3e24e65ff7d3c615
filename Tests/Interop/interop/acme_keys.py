"""Signatures and certificates of the tests' CA: JWS as RFC 8555 wants it, X.509 by python3-cryptography."""

import base64
import datetime
import hashlib
import json
import re
import secrets

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
except ImportError:
    # The suites that need it are skipped, and say so.
    x509 = None

PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text):
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise ValueError(f"not base64url: {text[:60]!r}")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# Accounts

def new_key():
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def jwk_of(key):
    return public_jwk(key.public_key())


def public_jwk(key):
    numbers = key.public_numbers()
    return {"crv": "P-256", "kty": "EC", "x": encode(numbers.x.to_bytes(32, "big")), "y": encode(numbers.y.to_bytes(32, "big"))}


def thumbprint(jwk):
    """RFC 7638: the required members in order, no white space."""
    text = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"), sort_keys=True)
    return encode(hashlib.sha256(text.encode()).digest())


def thumbprint_of_file(path):
    with open(path, "rb") as file:
        return thumbprint(jwk_of(serialization.load_pem_private_key(file.read(), None)))


def is_signed(jws, jwk):
    """ES256 (RFC 7518 section 3.4): R and S, 32 octets each."""
    signature = decode(jws["signature"])
    if len(signature) != 64 or jwk.get("kty") != "EC" or jwk.get("crv") != "P-256":
        return False
    x, y = (int.from_bytes(decode(jwk[name]), "big") for name in "xy")
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key().verify(
            der, f"{jws['protected']}.{jws['payload']}".encode(), ec.ECDSA(hashes.SHA256()))
        return True
    except InvalidSignature:
        return False


# Certificates

def read_request(der):
    """The names of a CSR in order, and the public key; ValueError says what is wrong with it."""
    request = x509.load_der_x509_csr(der)
    if not request.is_signature_valid:
        raise ValueError("the CSR's signature is wrong")
    if list(request.subject):
        raise ValueError(f"the CSR has a subject: {request.subject}")
    if [extension.oid for extension in request.extensions] != [x509.OID_SUBJECT_ALTERNATIVE_NAME]:
        raise ValueError("the CSR has other extensions than names")
    names = request.extensions[0].value
    if len(names) != len(names.get_values_for_type(x509.DNSName)):
        raise ValueError("the CSR has names that are no DNS names")
    return names.get_values_for_type(x509.DNSName), request.public_key()


def certificate_id(der):
    """RFC 9773 section 4.1."""
    certificate = x509.load_der_x509_certificate(der)
    authority = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    serial = certificate.serial_number
    return encode(authority) + "." + encode(serial.to_bytes(serial.bit_length() // 8 + 1, "big"))


def names_of(der):
    certificate = x509.load_der_x509_certificate(der)
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)


def end_of(der):
    """Seconds since 1970."""
    moment = x509.load_der_x509_certificate(der).not_valid_after
    return moment.replace(tzinfo=datetime.timezone.utc).timestamp()


def key_of(der):
    """The public key, to be compared."""
    return x509.load_der_x509_certificate(der).public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def to_der(pem):
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


def split_chain(pem):
    """DER, the leaf first."""
    return [to_der(one) for one in PEM.findall(pem)]


def jwk_of_certificate(der):
    return public_jwk(x509.load_der_x509_certificate(der).public_key())


class Issuer:
    """A root and an intermediate certificate, and leaves below."""

    def __init__(self, name):
        self.name = name
        self.root_key, self.key = new_key(), new_key()
        self.root = self.sign(f"{name} root", self.root_key.public_key(), None, 86_400 * 30, self.root_key, path_length=1)
        self.intermediate = self.sign(f"{name} R1", self.key.public_key(), self.root, 86_400 * 20, self.root_key, path_length=0)

    @staticmethod
    def sign(subject, public_key, issuer, lifetime, key, names=(), path_length=None, begin=None):
        begin = begin or datetime.datetime.utcnow().replace(microsecond=0)
        subject = x509.Name([x509.NameAttribute(x509.OID_COMMON_NAME, subject)] if subject else [])
        is_authority = path_length is not None
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.subject if issuer else subject)
        builder = builder.public_key(public_key).serial_number(secrets.randbits(159))
        builder = builder.not_valid_before(begin).not_valid_after(begin + datetime.timedelta(seconds=lifetime))
        builder = builder.add_extension(x509.BasicConstraints(is_authority, path_length), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        usage = dict.fromkeys(["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"], False)
        builder = builder.add_extension(
            x509.KeyUsage(digital_signature=not is_authority, key_cert_sign=is_authority, crl_sign=is_authority, **usage), critical=True)
        if issuer:
            authority = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True)
            builder = builder.add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        return builder.sign(key, hashes.SHA256())

    def issue(self, names, public_key, lifetime, age=0):
        """PEM: leaf and intermediate. `age`: so many seconds of the lifetime are over."""
        begin = datetime.datetime.utcnow().replace(microsecond=0) - datetime.timedelta(seconds=age)
        return self.pem(self.sign(None, public_key, self.intermediate, lifetime, self.key, names, begin=begin)) + self.pem(self.intermediate)

    @staticmethod
    def pem(certificate):
        return certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def root_pem(self):
        return self.pem(self.root).decode()
