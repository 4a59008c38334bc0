"""moto's S3 server, in memory, behind the faults that all test servers share."""

import base64
import logging
import urllib.parse
from typing import Any

import werkzeug.test
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends

from tests.stores.faults import FaultyHandler, FaultyServer

REGION = "us-east-1"
KINDS = {"GET": "read", "HEAD": "stat", "PUT": "write", "POST": "write", "DELETE": "delete"}
# Without it moto does not know which of its services is meant.
SIGNATURE = f"AWS4-HMAC-SHA256 Credential=tests/20260101/{REGION}/s3/aws4_request"


class Handler(FaultyHandler):
    """A client's connection."""

    server: "S3Server"

    def kind_and_object(self) -> tuple[str, str]:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).strip("/")
        if "/" not in path:
            return ("list" if self.command == "GET" else "bucket"), f"{path}/"
        return ("copy" if "x-amz-copy-source" in self.headers else KINDS[self.command]), path

    def answer(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        reply = self.server.moto.open(
            path, method=self.command, query_string=query, headers=list(self.headers.items()), data=body
        )
        skipped = {"content-length", "content-type", "connection", "date", "server"}
        headers = {name.replace("-", "_"): value for name, value in reply.headers if name.lower() not in skipped}
        if self.command == "HEAD":
            # The length of what GET would send.
            self.send_response(reply.status_code)
            for name, value in reply.headers:
                self.send_header(name, value)
            self.end_headers()
        else:
            self.reply(reply.status_code, reply.data, reply.headers.get("Content-Type", ""), **headers)

    def control(self, action: str, values: dict[str, Any]) -> Any:
        buckets = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        bucket = f"/{values.get('bucket')}"
        signed = {"headers": {"Authorization": SIGNATURE}}
        if action == "make_bucket":
            self.server.moto.open(bucket, method="PUT", **signed)
        elif action == "remove_bucket":
            for name in list(buckets.buckets[bucket[1:]].keys):
                buckets.delete_object(bucket[1:], name)
            self.server.moto.open(bucket, method="DELETE", **signed)
        elif action == "names":
            return sorted(buckets.buckets[bucket[1:]].keys)
        elif action == "get":
            return buckets.get_object(bucket[1:], values["name"]).value
        elif action == "put":
            buckets.put_object(bucket[1:], values["name"], base64.b64decode(values["data"]))
        else:
            return super().control(action, values)
        return None


class S3Server(FaultyServer):
    """With moto's application in it."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.moto = werkzeug.test.Client(DomainDispatcherApplication(create_backend_app))


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    S3Server().serve()
