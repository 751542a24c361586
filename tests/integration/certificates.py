"""Certificate authorities made on the spot with the openssl command: certificates with any names, dates and uses, and lists of those revoked."""

import pathlib
import subprocess

CONFIG = """
[ca]
default_ca = here
[here]
dir = {folder}
database = $dir/index
serial = $dir/serial
crlnumber = $dir/crlnumber
new_certs_dir = $dir
certificate = $dir/ca.pem
private_key = $dir/ca.key
default_md = sha256
default_days = 30
default_crl_days = 30
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
"""


def openssl(*arguments, check=True, input=None, timeout=60):
    result = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, input=input, timeout=timeout)
    if check and result.returncode != 0:
        raise AssertionError(f"openssl {' '.join(map(str, arguments))}: {result.stderr}")
    return result


class Certificate:
    """Paths of a certificate (PEM, its chain included) and of its key."""

    def __init__(self, certificate, key):
        self.certificate, self.key = pathlib.Path(certificate), pathlib.Path(key)

    def bytes(self):
        """(key, certificate), as grpc takes them."""
        return self.key.read_bytes(), self.certificate.read_bytes()


class Authority:
    """One CA in a folder of its own."""

    def __init__(self, folder, name="Test CA"):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = self.folder / "ca.cnf"
        self.config.write_text(CONFIG.format(folder=self.folder))
        (self.folder / "index").write_text("")
        (self.folder / "serial").write_text("1000\n")
        (self.folder / "crlnumber").write_text("01\n")
        self.certificate, self.key = self.folder / "ca.pem", self.folder / "ca.key"
        openssl("req", "-config", self.config, "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", self.key,
                "-out", self.certificate, "-days", "365", "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def issue(self, name, alternatives="", usage=None, start=None, end=None, file=None):
        """A certificate for `name`; alternatives like "DNS:a.example,URI:spiffe://a/b"; dates like "20200101000000Z"."""
        stem = file or name.replace("/", "_")
        request, certificate, key = (self.folder / f"{stem}.{kind}" for kind in ("csr", "pem", "key"))
        extensions = (["-addext", f"subjectAltName={alternatives}"] if alternatives else []) + \
                     (["-addext", f"extendedKeyUsage={usage}"] if usage else [])
        openssl("req", "-config", self.config, "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
                "-out", request, "-subj", f"/CN={name}", *extensions)
        dates = (["-startdate", start] if start else []) + (["-enddate", end] if end else [])
        openssl("ca", "-config", self.config, "-batch", "-notext", "-in", request, "-out", certificate, *dates)
        key.chmod(0o600)
        return Certificate(certificate, key)

    def revoke(self, certificate):
        openssl("ca", "-config", self.config, "-revoke", certificate.certificate)

    def crl(self, *options):
        """The path of a fresh list of what is revoked."""
        path = self.folder / "crl.pem"
        openssl("ca", "-config", self.config, "-gencrl", "-out", path, *options)
        return path
