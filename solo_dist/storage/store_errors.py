"""Errors of stores, explained with their reason and a remedy."""

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from solo_dist.errors import StoreError, StoreUnavailable
from solo_dist.storage.urls import is_remote

_LONGEST_REASON = 300


@contextlib.contextmanager
def clear_errors(path: str) -> Iterator[None]:
    """Turns errors about a path, also NotFoundError, of TensorFlow and google-cloud-storage into a StoreError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, tf.errors.OpError) or type(error).__module__.startswith(("google.", "requests.")):
            raise explained(error, path) from error
        raise


class Cause:
    """A kind of error of stores: how to recognise it, its explanation, and a remedy."""

    def __init__(self, name: str, pattern: str, what: str):
        self.name, self.what = name, what
        self.pattern = re.compile(pattern, re.IGNORECASE)


# The first that matches. Text of errors comes from TensorFlow's gs:// client, boto3, the AWS SDK and the stores.
_CAUSES = (
    Cause("bucket", r"NoSuchBucket|bucket does not exist", "there is no such bucket; create it or correct the path"),
    Cause(
        "expired",
        r"ExpiredToken|token.{0,20}expired|UnauthorizedSSOToken|TokenRefreshRequired|RequestTimeTooSkewed|RequestExpired",
        "the login has expired; renew it (AWS_SESSION_TOKEN, aws sso login, gcloud auth application-default login) "
        "and check the clock of this machine",
    ),
    Cause(
        "region",
        r"PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint|region '",
        "the bucket is in another region; set AWS_REGION to its region",
    ),
    Cause(
        "credentials",
        r"code 401|InvalidAccessKeyId|SignatureDoesNotMatch|AuthFailure|Invalid Credentials|Anonymous caller|"
        r"DefaultCredentialsError|RefreshError|NoCredentials|PartialCredentials|ProfileNotFound|CredentialRetrieval",
        "no valid credentials; run gcloud auth application-default login or set GOOGLE_APPLICATION_CREDENTIALS for "
        "gs://, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE for s3://",
    ),
    Cause(
        "quota",
        r"code 429|SlowDown|rateLimitExceeded|quota|TooManyRequests|No space left|ResourceExhausted",
        "a quota is used up or there is no space left; delete files, ask for more, or wait",
    ),
    Cause(
        "scheme", r"File system scheme .* not implemented", "TensorFlow knows no such kind of path; use gs:// or s3://"
    ),
    Cause(
        "permission",
        r"AccessDenied|code 403|PermissionDenied|permission denied",
        "no permission; use an account that may list, read, write and delete there, or have this one allowed to",
    ),
    Cause(
        "network",
        r"libcurl code|curlCode|Connection\w*Error|resolve host|connect to server|timed? ?out|HTTPClientError|"
        r"ReadError|IncompleteRead|ResponseStreaming|ProtocolError|Connection ?(broken|was closed|closed)",
        "the store cannot be reached; check the network, proxies and S3_ENDPOINT, then run the same command again",
    ),
    Cause("unavailable", r"code 5\d\d|InternalError|UnavailableError", "the store answers with errors; try later"),
)
_MAY_PASS = ("quota", "network", "unavailable")


def explained(error: Exception, path: str) -> StoreError:
    """The error about a path as a StoreError, with its reason and what to do."""
    cause = cause_of(error)
    if cause is None:
        return StoreError(f"{path}: {reason(error)}")
    kind = StoreUnavailable if is_remote(path) and cause.name in _MAY_PASS else StoreError
    return kind(f"{path}: {cause.what}. ({reason(error)})")


def cause_of(error: BaseException) -> Cause | None:
    """Which of the known causes an error has; None: another one."""
    text = f"{type(error).__name__}: {getattr(error, 'message', error)}"
    if isinstance(code := getattr(error, "code", None), int):  # google-cloud-storage keeps it in another attribute
        text += f" (code {int(code)})"
    return next((cause for cause in _CAUSES if cause.pattern.search(text)), None)


def may_pass(error: BaseException) -> bool:
    """Whether the same call can succeed later."""
    if not isinstance(error, tf.errors.OpError):
        return False
    cause = cause_of(error)
    return cause is not None and cause.name in _MAY_PASS


def reason(error: BaseException) -> str:
    """The message of the store, in one line."""
    text = re.sub(r"\{\{.*?\}\}|\[Op:\w+\]", "", getattr(error, "message", str(error)))
    return re.sub(r"\s+", " ", text).strip()[:_LONGEST_REASON]
