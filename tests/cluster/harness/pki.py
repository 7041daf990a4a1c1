"""Certificates and kubeconfigs of a cluster, made with the openssl program."""

import base64
import json
import shutil
from pathlib import Path

from .config import NotRun
from .process import quiet

DAYS = "30"


class Pki:
    """One authority for everything: API server, kubelets, people. Keys are ECDSA, so that making them takes no time."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def path(self, name):
        return str(self.folder / name)

    def create(self):
        if not shutil.which("openssl"):
            raise NotRun("there is no openssl program; scripts/setup installs it")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self._key("ca.key")
        quiet("openssl", "req", "-x509", "-key", self.path("ca.key"), "-subj", "/CN=pitcrew-cluster", "-days", DAYS, "-out", self.path("ca.crt"))
        self.add_token_key()

    # The keys that sign service accounts' tokens. The newest signs, all are believed.

    def token_keys(self):
        return [str(path) for path in sorted(self.folder.glob("sa-*.key"))]

    def add_token_key(self):
        self._key(f"sa-{len(self.token_keys()) + 1}.key")

    def keep_newest_token_key(self):
        """Under the first name, so that the next one comes after it."""
        newest = Path(self.token_keys()[-1])
        newest.rename(self.folder / "sa-1.key")
        for old in self.token_keys()[1:]:
            Path(old).unlink()

    def issue(self, name, subject, usage, names=()):
        """A certificate <name>.crt and <name>.key. usage: serverAuth, clientAuth; names: DNS:… and IP:…"""
        # By its key's name, as Kubernetes' own are: authorities that follow one another have one subject.
        extensions = f"authorityKeyIdentifier=keyid\nextendedKeyUsage={usage}\n"
        if names:
            extensions += f"subjectAltName={','.join(names)}\n"
        self._key(f"{name}.key")
        request = quiet("openssl", "req", "-new", "-key", self.path(f"{name}.key"), "-subj", subject)
        (self.folder / f"{name}.ext").write_text(extensions)
        quiet("openssl", "x509", "-req", "-CA", self.path("ca.crt"), "-CAkey", self.path("ca.key"), "-CAcreateserial", "-days", DAYS,
              "-extfile", self.path(f"{name}.ext"), "-out", self.path(f"{name}.crt"), text=request)

    def kubeconfig(self, file, server, user):
        """A kubeconfig that holds everything, for the certificate of that name. JSON is YAML."""
        def data(name):
            return base64.b64encode((self.folder / name).read_bytes()).decode()

        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "pitcrew", "cluster": {"server": server, "certificate-authority-data": data("ca.crt")}}],
            "users": [{"name": user, "user": {"client-certificate-data": data(f"{user}.crt"), "client-key-data": data(f"{user}.key")}}],
            "contexts": [{"name": "pitcrew", "context": {"cluster": "pitcrew", "user": user}}],
            "current-context": "pitcrew",
        }
        Path(file).write_text(json.dumps(config, indent=1))
        Path(file).chmod(0o600)
        return str(file)

    def _key(self, name):
        quiet("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.path(name))
