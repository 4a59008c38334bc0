"""A Google Cloud Storage server in memory: the JSON API and the XML API's download, as far as clients here use them.

One port serves plain HTTP (google-cloud-storage with STORAGE_EMULATOR_HOST) and, as an HTTPS proxy that ends TLS
itself, TensorFlow's gs:// file system, whose host names are fixed. Written from https://cloud.google.com/storage/docs/json_api.
"""

import base64
import datetime
import email
import email.policy
import hashlib
import json
import re
import ssl
import sys
import threading
import urllib.parse
from pathlib import Path
from typing import Any

import google_crc32c

from tests.stores.faults import FaultyHandler, FaultyServer

HOSTS = ("www.googleapis.com", "storage.googleapis.com")


class Object:
    """One generation of an object."""

    def __init__(self, bucket: str, name: str, data: bytes, generation: int, metadata: dict[str, Any]):
        self.data, self.generation = data, generation
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self.resource = {
            "kind": "storage#object",
            "id": f"{bucket}/{name}/{generation}",
            "bucket": bucket,
            "name": name,
            "contentType": metadata.get("contentType", "application/octet-stream"),
            "metadata": metadata.get("metadata", {}),
            "generation": str(generation),
            "metageneration": "1",
            "size": str(len(data)),
            "crc32c": base64.b64encode(google_crc32c.Checksum(data).digest()).decode(),
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
            "etag": str(generation),
            "timeCreated": now,
            "updated": now,
            "storageClass": "STANDARD",
        }


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class GcsServer(FaultyServer):
    """Buckets and uploads in progress."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.buckets: dict[str, dict[str, Object]] = {}
        self.uploads: dict[str, dict[str, Any]] = {}
        self.generation = 1_000
        self.store_lock = threading.RLock()
        self.tls: ssl.SSLContext

    def bucket(self, name: str) -> dict[str, Object]:
        if name not in self.buckets:
            raise Refused(404, "The specified bucket does not exist.")
        return self.buckets[name]

    def object(self, bucket: str, name: str) -> Object:
        try:
            return self.bucket(bucket)[name]
        except KeyError:
            raise Refused(404, f"No such object: {bucket}/{name}") from None

    def insert(self, bucket: str, name: str, data: bytes, metadata: dict[str, Any], query: dict[str, str]) -> Object:
        """Adds a new generation if the conditions hold and the checksums that the client gave are right."""
        with self.store_lock:
            objects = self.bucket(bucket)
            _check_generation(query, objects.get(name))
            self.generation += 1
            made = Object(bucket, name, data, self.generation, metadata)
            for field in ("crc32c", "md5Hash"):
                if metadata.get(field) not in (None, made.resource[field]):
                    raise Refused(400, f"Provided {field} does not match the data.")
            objects[name] = made
            return made


def _check_generation(query: dict[str, str], there: Object | None) -> None:
    wanted = query.get("ifGenerationMatch")
    if wanted is not None and int(wanted) != (there.generation if there else 0):
        raise Refused(412, "At least one of the pre-conditions you specified did not hold.")


class Handler(FaultyHandler):
    """A client's connection."""

    server: GcsServer

    def do_CONNECT(self) -> None:  # noqa: N802
        """Becomes the host that the client wants to talk to."""
        self._break_if_cut()
        if self.path.split(":")[0] not in HOSTS:
            self.send_error(403)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.flush()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb", -1)
        self.wfile = self.connection.makefile("wb", 0)
        self.close_connection = False

    def parse_request(self) -> bool:
        """Splits the path too."""
        if not super().parse_request():
            return False
        parts = urllib.parse.urlsplit(self.path)
        # A name's "/" is quoted in the JSON API's paths, so they are split before they are unquoted.
        self.parts = [urllib.parse.unquote(part) for part in parts.path.strip("/").split("/")]
        self.query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        return True

    def control(self, action: str, values: dict[str, Any]) -> Any:
        server = self.server
        if action == "make_bucket":
            return server.buckets.setdefault(values["bucket"], {}) and None
        if action == "remove_bucket":
            return server.buckets.pop(values["bucket"], None) and None
        if action == "names":
            return sorted(server.bucket(values["bucket"]))
        if action == "get":
            return server.object(values["bucket"], values["name"]).data
        if action == "put":
            data = base64.b64decode(values["data"])
            return server.insert(values["bucket"], values["name"], data, {}, {}) and None
        return super().control(action, values)

    def kind_and_object(self) -> tuple[str, str]:
        bucket, name = self._target()
        path = f"{bucket}/{name}"
        if "upload" in self.parts[:1]:
            return ("write", f"{bucket}/{self.query.get('name', '')}")
        if not self._is_json_api() or self.query.get("alt") == "media":
            return ("read", path)
        if self.command == "DELETE":
            return ("delete", path)
        if self.command == "POST":
            return ("copy" if self._copies() else "write", path)
        return ("stat" if name else "list" if self.parts[-1] == "o" else "bucket", path)

    def _is_json_api(self) -> bool:
        return "storage" in self.parts[:2] and "v1" in self.parts[:3]

    def _target(self) -> tuple[str, str]:
        """Bucket and object of the path."""
        if not self._is_json_api():
            return self.parts[0], "/".join(self.parts[1:])
        rest = self.parts[self.parts.index("v1") + 1 :]
        return rest[1] if len(rest) > 1 else "", rest[3] if len(rest) > 3 else ""

    def _copies(self) -> str:
        return next((verb for verb in ("rewriteTo", "copyTo") if verb in self.parts[-5:-4]), "")

    def answer(self, body: bytes) -> None:
        try:
            bucket, name = self._target()
            if self.parts[0] == "upload":
                self._upload(bucket, body)
            elif not self._is_json_api() or self.query.get("alt") == "media":
                self._download(self.server.object(bucket, name))
            elif not bucket:
                name = json.loads(body)["name"]
                self.server.buckets.setdefault(name, {})
                self._reply_json({"kind": "storage#bucket", "name": name})
            elif name:
                self._object(bucket, name, body)
            elif self.parts[-1] == "o":
                self._reply_json(self._listing(bucket))
            else:
                self.server.bucket(bucket)
                self._reply_json({"kind": "storage#bucket", "name": bucket, "location": "US"})
        except Refused as error:
            self._reply_json({"error": {"code": error.status, "message": str(error)}}, error.status)

    def _reply_json(self, value: Any, status: int = 200) -> None:
        self.reply(status, json.dumps(value).encode())

    def _object(self, bucket: str, name: str, body: bytes) -> None:
        server = self.server
        with server.store_lock:
            if self.command == "POST" and (verb := self._copies()):
                start = self.parts.index(verb)
                source = server.object(bucket, name)
                made = server.insert(self.parts[start + 2], self.parts[start + 4], source.data, {}, self.query).resource
                done = {"done": True, "resource": made, "objectSize": made["size"], "totalBytesRewritten": made["size"]}
                self._reply_json(done if verb == "rewriteTo" else made)
            elif self.command == "POST" and self.parts[-1] == "compose":
                request = json.loads(body)
                data = b"".join(server.object(bucket, part["name"]).data for part in request["sourceObjects"])
                made = server.insert(bucket, name, data, request.get("destination", {}), self.query)
                self._reply_json(made.resource)
            elif self.command == "DELETE":
                _check_generation(self.query, server.object(bucket, name))
                del server.bucket(bucket)[name]
                self.reply(204)
            else:
                found = server.object(bucket, name)
                _check_generation(self.query, found)
                self._reply_json(found.resource)

    def _listing(self, bucket: str) -> dict[str, Any]:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        page, after = int(self.query.get("maxResults", 1000)), self.query.get("pageToken", "")
        entries: dict[str, Any] = {}
        with self.server.store_lock:
            for name, found in sorted(self.server.bucket(bucket).items()):
                if not name.startswith(prefix):
                    continue
                cut = name.find(delimiter, len(prefix)) if delimiter else -1
                entries[name if cut < 0 else name[: cut + 1]] = found.resource if cut < 0 else None
        names = [name for name in entries if name > after]
        shown = names[:page]
        result = {
            "kind": "storage#objects",
            "items": [entries[name] for name in shown if entries[name]],
            "prefixes": [name for name in shown if not entries[name]],
        }
        return result | ({"nextPageToken": shown[-1]} if len(names) > page else {})

    def _download(self, found: Object) -> None:
        headers = {
            "ETag": str(found.generation),
            "x_goog_generation": str(found.generation),
            "x_goog_hash": f"crc32c={found.resource['crc32c']},md5={found.resource['md5Hash']}",
        }
        size, data, status = len(found.data), found.data, 200
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), min(int(wanted[2] or size), size - 1)
            if first >= size:
                self.reply(416, b"", "text/plain", Content_Range=f"bytes */{size}")
                return
            data, status = data[first : last + 1], 206
            headers["Content_Range"] = f"bytes {first}-{last}/{size}"
        self.reply(status, data, found.resource["contentType"], **headers)

    # ---- Uploads

    def _upload(self, bucket: str, body: bytes) -> None:
        kind = self.query["uploadType"]
        if kind == "media":
            metadata = self._hashes()
            self._reply_json(self.server.insert(bucket, self.query["name"], body, metadata, self.query).resource)
        elif kind == "multipart":
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            # The default policy would change line ends in the data.
            boundary = email.message_from_bytes(head).get_boundary()
            metadata, data = _related_parts(body, boundary)
            name = metadata.get("name") or self.query["name"]
            self._reply_json(self.server.insert(bucket, name, data, metadata | self._hashes(), self.query).resource)
        elif self.command == "POST":
            self._start_upload(bucket, body)
        else:
            self._continue_upload(body)

    def _hashes(self) -> dict[str, str]:
        names = {"crc32c": "crc32c", "md5": "md5Hash"}
        pairs = [part.strip().split("=", 1) for part in self.headers.get("X-Goog-Hash", "").split(",") if "=" in part]
        return {names[name]: value for name, value in pairs if name in names}

    def _start_upload(self, bucket: str, body: bytes) -> None:
        metadata = json.loads(body or b"{}")
        name = metadata.get("name") or self.query["name"]
        with self.server.store_lock:
            _check_generation(self.query, self.server.bucket(bucket).get(name))
            number = f"{len(self.server.uploads)}"
            upload = {"bucket": bucket, "name": name, "metadata": metadata, "query": self.query, "data": bytearray()}
            self.server.uploads[number] = upload
        scheme = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
        arguments = urllib.parse.urlencode({"uploadType": "resumable", "name": name, "upload_id": number})
        location = f"{scheme}://{self.headers['Host']}/upload/storage/v1/b/{bucket}/o?{arguments}"
        self.reply(200, b"", Location=location)

    def _continue_upload(self, body: bytes) -> None:
        upload = self.server.uploads.get(self.query["upload_id"])
        if upload is None:
            raise Refused(404, "No such upload.")
        data, span = upload["data"], self.headers.get("Content-Range", "")
        part = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", span)
        total = len(body) if part is None else int(part[2]) if part[2] != "*" else None
        if "made" not in upload:
            first = int(part[1]) if part and part[1] else len(data)
            if first > len(data):
                raise Refused(400, f"{len(data)} bytes are here, {span} leaves a gap.")
            data[first:] = body if body else data[first:]
            if total is None or len(data) < total:
                headers = {"Range": f"bytes=0-{len(data) - 1}"} if data else {}
                self.reply(308, b"", **headers)
                return
            metadata = upload["metadata"] | self._hashes()
            upload["made"] = self.server.insert(
                upload["bucket"], upload["name"], bytes(data), metadata, upload["query"]
            )
            data.clear()
        self._reply_json(upload["made"].resource)


def _related_parts(body: bytes, boundary: str) -> tuple[dict[str, Any], bytes]:
    """The two parts of a multipart/related body, to the byte."""
    mark = b"--" + boundary.encode()
    first, second = body.split(mark + b"\r\n")[1:3]
    metadata = json.loads(first.split(b"\r\n\r\n", 1)[1])
    data = second.split(b"\r\n\r\n", 1)[1]
    return metadata, data[: data.rindex(b"\r\n" + mark + b"--")]


def make_certificate(path: Path) -> None:
    """A certificate of the hosts with its key, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "object store of the tests")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)


if __name__ == "__main__":
    certificate = Path(sys.argv[1]) / "gcs.pem"
    make_certificate(certificate)
    server = GcsServer()
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(certificate)
    server.serve(certificate=str(certificate))
