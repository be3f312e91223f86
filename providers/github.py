"""GitHub: https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries

The event's name is `github/<event>`, or `github/<event>.<action>` where the payload has an action. The delivery's GUID is in a
header that GitHub does not sign, so the key is the GUID and the hash of the body together.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from gateway import Event, Hmac, Inbound, Parsed, Provider, Sample, body_key, declared_events

MAX_ATTRIBUTE = 200


class User(msgspec.Struct):
    """A user, bot or organisation."""

    login: str
    id: int
    type: str | None = None


class Repository(msgspec.Struct):
    """A repository."""

    id: int
    name: str
    full_name: str
    private: bool = False
    html_url: str | None = None
    default_branch: str | None = None


class Author(msgspec.Struct):
    """Whom git says a commit is by."""

    name: str | None = None
    email: str | None = None
    username: str | None = None


class Commit(msgspec.Struct):
    """A pushed commit."""

    id: str
    message: str
    url: str | None = None
    timestamp: str | None = None
    author: Author | None = None
    added: list[str] = []
    removed: list[str] = []
    modified: list[str] = []


class Payload(msgspec.Struct):
    """What every payload may have."""

    repository: Repository | None = None
    sender: User | None = None
    organization: dict[str, Any] | None = None
    installation: dict[str, Any] | None = None
    action: str | None = None


class PushPayload(Payload, kw_only=True):
    """https://docs.github.com/webhooks/webhook-events-and-payloads#push"""

    ref: str
    before: str
    after: str
    created: bool = False
    deleted: bool = False
    forced: bool = False
    compare: str | None = None
    commits: list[Commit] = []
    head_commit: Commit | None = None


class PingPayload(Payload, kw_only=True):
    """Sent when a webhook is made."""

    zen: str
    hook_id: int


class Ref(msgspec.Struct):
    """One side of a pull request."""

    ref: str
    sha: str


class PullRequest(msgspec.Struct):
    """A pull request."""

    id: int
    number: int
    title: str
    state: str
    user: User | None = None
    body: str | None = None
    draft: bool | None = None
    merged: bool | None = None
    html_url: str | None = None
    head: Ref | None = None
    base: Ref | None = None


class PullRequestPayload(Payload, kw_only=True):
    """https://docs.github.com/webhooks/webhook-events-and-payloads#pull_request"""

    number: int
    pull_request: PullRequest


class ReviewPayload(Payload, kw_only=True):
    """A review of a pull request."""

    pull_request: PullRequest
    review: dict[str, Any]


class Issue(msgspec.Struct):
    """An issue."""

    id: int
    number: int
    title: str
    state: str | None = None
    user: User | None = None
    body: str | None = None
    html_url: str | None = None


class IssuePayload(Payload, kw_only=True):
    """https://docs.github.com/webhooks/webhook-events-and-payloads#issues"""

    issue: Issue


class CommentPayload(Payload, kw_only=True):
    """A comment on an issue or a pull request."""

    issue: Issue
    comment: dict[str, Any]


class Release(msgspec.Struct):
    """A release."""

    id: int
    tag_name: str
    name: str | None = None
    draft: bool = False
    prerelease: bool = False
    html_url: str | None = None


class ReleasePayload(Payload, kw_only=True):
    """https://docs.github.com/webhooks/webhook-events-and-payloads#release"""

    release: Release


class WorkflowRunPayload(Payload, kw_only=True):
    """A run of GitHub Actions."""

    workflow_run: dict[str, Any]


class CheckRunPayload(Payload, kw_only=True):
    """A check."""

    check_run: dict[str, Any]


class RefPayload(Payload, kw_only=True):
    """A branch or tag was made or deleted."""

    ref: str
    ref_type: str


class ForkPayload(Payload, kw_only=True):
    """A fork."""

    forkee: Repository


class DeploymentStatusPayload(Payload, kw_only=True):
    """A deployment's status."""

    deployment: dict[str, Any]
    deployment_status: dict[str, Any]


class MemberPayload(Payload, kw_only=True):
    """A collaborator."""

    member: User


class Push(Event[PushPayload], name="github/push"): ...


class Ping(Event[PingPayload], name="github/ping"): ...


class PullRequestOpened(Event[PullRequestPayload], name="github/pull_request.opened"): ...


class PullRequestClosed(Event[PullRequestPayload], name="github/pull_request.closed"): ...


class PullRequestReopened(Event[PullRequestPayload], name="github/pull_request.reopened"): ...


class PullRequestSynchronize(Event[PullRequestPayload], name="github/pull_request.synchronize"): ...


class PullRequestEdited(Event[PullRequestPayload], name="github/pull_request.edited"): ...


class PullRequestLabeled(Event[PullRequestPayload], name="github/pull_request.labeled"): ...


class PullRequestReadyForReview(Event[PullRequestPayload], name="github/pull_request.ready_for_review"): ...


class ReviewSubmitted(Event[ReviewPayload], name="github/pull_request_review.submitted"): ...


class IssueOpened(Event[IssuePayload], name="github/issues.opened"): ...


class IssueClosed(Event[IssuePayload], name="github/issues.closed"): ...


class IssueReopened(Event[IssuePayload], name="github/issues.reopened"): ...


class IssueLabeled(Event[IssuePayload], name="github/issues.labeled"): ...


class IssueCommentCreated(Event[CommentPayload], name="github/issue_comment.created"): ...


class ReleasePublished(Event[ReleasePayload], name="github/release.published"): ...


class ReleaseCreated(Event[ReleasePayload], name="github/release.created"): ...


class WorkflowRunRequested(Event[WorkflowRunPayload], name="github/workflow_run.requested"): ...


class WorkflowRunCompleted(Event[WorkflowRunPayload], name="github/workflow_run.completed"): ...


class CheckRunCompleted(Event[CheckRunPayload], name="github/check_run.completed"): ...


class Create(Event[RefPayload], name="github/create"): ...


class Delete(Event[RefPayload], name="github/delete"): ...


class Fork(Event[ForkPayload], name="github/fork"): ...


class StarCreated(Event[Payload], name="github/star.created"): ...


class RepositoryCreated(Event[Payload], name="github/repository.created"): ...


class InstallationCreated(Event[Payload], name="github/installation.created"): ...


class DeploymentStatusCreated(Event[DeploymentStatusPayload], name="github/deployment_status.created"): ...


class MemberAdded(Event[MemberPayload], name="github/member.added"): ...


_USER = {"login": "octocat", "id": 583231, "type": "User"}
_REPOSITORY = {
    "id": 1296269,
    "name": "hello-world",
    "full_name": "octocat/hello-world",
    "private": False,
    "html_url": "https://github.com/octocat/hello-world",
    "default_branch": "main",
}
_COMMIT = {
    "id": "6dcb09b5b57875f334f61aebed695e2e4193db5e",
    "message": "Fix all the bugs",
    "timestamp": "2026-01-02T03:04:05Z",
    "author": {"name": "Octo Cat", "email": "octocat@example.com", "username": "octocat"},
    "added": [],
    "removed": [],
    "modified": ["README.md"],
}
_ISSUE = {"id": 1, "number": 1347, "title": "Found a bug", "state": "open", "user": _USER, "body": "It crashes."}
_PULL_REQUEST = {
    "id": 1,
    "number": 42,
    "title": "Mend the crash",
    "state": "open",
    "user": _USER,
    "draft": False,
    "head": {"ref": "mend", "sha": _COMMIT["id"]},
    "base": {"ref": "main", "sha": "0" * 40},
}
_RELEASE = {"id": 1, "tag_name": "v1.0.0", "name": "v1.0.0", "draft": False, "prerelease": False}
_SAMPLES: dict[str, dict[str, Any]] = {
    "push": {
        "ref": "refs/heads/main",
        "before": "0" * 40,
        "after": _COMMIT["id"],
        "commits": [_COMMIT],
        "head_commit": _COMMIT,
    },
    "ping": {"zen": "Keep it logically awesome.", "hook_id": 30, "hook": {"type": "Repository", "id": 30, "active": True}},
    "pull_request.opened": {"number": 42, "pull_request": _PULL_REQUEST},
    "pull_request.closed": {"number": 42, "pull_request": {**_PULL_REQUEST, "state": "closed", "merged": True}},
    "issues.opened": {"issue": _ISSUE},
    "issues.closed": {"issue": {**_ISSUE, "state": "closed"}},
    "issue_comment.created": {"issue": _ISSUE, "comment": {"id": 1, "body": "Me too", "user": _USER}},
    "release.published": {"release": _RELEASE},
    "star.created": {"starred_at": "2026-01-02T03:04:05Z"},
    "workflow_run.completed": {"workflow_run": {"id": 1, "name": "CI", "status": "completed", "conclusion": "success"}},
}


def _payload(type_: str) -> Mapping[str, Any]:
    action = type_.partition(".")[2]
    rest = {**_SAMPLES[type_], "repository": _REPOSITORY, "sender": _USER}
    return {"action": action, **rest} if action else rest


class GitHub(Provider):
    """Signs the raw bytes of the body, whether it is JSON or a form."""

    name = "github"
    title = "GitHub"
    docs = "https://docs.github.com/webhooks"
    setup = "In the repository under Settings > Webhooks, add this URL with content type application/json and a secret of yours."
    scheme = Hmac(header="X-Hub-Signature-256", prefix="sha256=")
    type_header = "X-GitHub-Event"
    events = declared_events(globals())
    samples = {name: (lambda name=name: _payload(name)) for name in _SAMPLES}

    def parse(self, request: Inbound) -> Parsed:
        """Event from the header, action from the payload; a form's payload is the value of its field `payload`."""
        payload = _form_payload(request)
        action = _action(request.body if payload is None else payload)
        event = request.header("x-github-event") or "unknown"
        delivery = request.header("x-github-delivery")
        hashed = body_key(request.body)
        return Parsed(
            type=f"{event}.{action}" if action else event,
            key=f"{delivery[:MAX_ATTRIBUTE]}:{hashed}" if delivery else hashed,
            data=payload,
            attributes=_attributes(request),
        )

    def sample(self, type_: str) -> Sample:
        """As GitHub sends it: JSON, with its headers."""
        headers = [
            ("X-GitHub-Event", type_.partition(".")[0]),
            ("X-GitHub-Delivery", str(uuid.uuid4())),
            ("X-GitHub-Hook-ID", "30"),
            ("User-Agent", "GitHub-Hookshot/0000000"),
        ]
        made = super().sample(type_)
        return Sample(body=made.body, headers=[*made.headers, *headers])


class _ActionOnly(msgspec.Struct):
    action: Any = None


_Action = msgspec.json.Decoder(_ActionOnly)


def _action(payload: bytes) -> str | None:
    """None where there is none, and for a payload that cannot be read: name and key are in the headers."""
    try:
        action = _Action.decode(payload).action
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return action if isinstance(action, str) else None


def _form_payload(request: Inbound) -> bytes | None:
    kind = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return None
    try:
        fields = dict(parse_qsl(request.body.decode("latin-1"), encoding="utf-8", errors="strict", max_num_fields=20))
    except ValueError:
        return None
    return fields["payload"].encode() if "payload" in fields else None


def _attributes(request: Inbound) -> dict[str, Any]:
    """Headers that tell of the delivery. GitHub does not sign them: they inform, and decide nothing."""
    names = {"delivery": "x-github-delivery", "event": "x-github-event", "hook_id": "x-github-hook-id"}
    found = {name: request.header(header) for name, header in names.items()}
    return {name: value for name, value in found.items() if value and len(value) <= MAX_ATTRIBUTE and value.isprintable()}
