"""MLflow: what an audit did, as one run with a child run and a model version for every subject.

Everything goes through `MlflowClient` with run ids written out. The fluent API keeps an active run in
the process, which steps on several threads would share.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from candling.audit.record import AuditRecord, Measurement, read_record
from candling.errors import ModelError, ServiceError
from tasks.environment import git_revision
from tasks.preflight import check_writable

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "check_tracking",
    "download_model",
    "flattened",
    "metric_name",
    "promote",
    "publish",
    "tracking_uri",
]

ALIAS = "approved"
_NAME_LENGTH = 250  # of metrics and params
_PER_BATCH = 100  # params that MLflow takes at once
_TIMEOUT = 4  # seconds


def tracking_uri(root: Path) -> str:
    """The tracking server that the environment names, or else a database at the repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.absolute() / 'mlflow.db'}"


def check_tracking(root: Path) -> None:
    """See within seconds that MLflow answers, before hours of work depend on it.

    Raises
    ------
    ServiceError
        If the server that MLFLOW_TRACKING_URI names does not answer, or the embedded database cannot
        be written.
    """
    uri = tracking_uri(root)
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        check_writable(root)
        return
    address = urlsplit(uri)
    try:
        if address.scheme in ("http", "https"):
            from mlflow import MlflowClient

            with _impatient():
                MlflowClient(uri).search_experiments(max_results=1)
        elif address.hostname and address.port:
            # MLflow would try a database that refuses again and again, for minutes.
            socket.create_connection((address.hostname, address.port), timeout=_TIMEOUT).close()
    except Exception as error:  # the client lets requests' errors through besides its own
        raise ServiceError(
            f"MLflow does not answer at URI {_without_password(uri)}; start it or unset MLFLOW_TRACKING_URI"
        ) from error


@contextmanager
def _impatient() -> Iterator[None]:
    """MLflow's client without its minutes of retries; what the user set wins."""
    ours = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(_TIMEOUT)}
    ours = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def download_model(name: str, root: Path, out: Path) -> Path:
    """Fetch a registered model, ``models:/name@alias`` or ``models:/name/version``, into the folder `out`.

    Raises
    ------
    ModelError
        If the registry has no such model.
    """
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = tracking_uri(root)
    match = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", name)
    if match is None:
        raise ModelError(f"{name}: write models:/NAME@ALIAS or models:/NAME/VERSION")
    model, alias, version = match.groups()
    try:
        client = MlflowClient(uri)
        version = version or str(client.get_model_version_by_alias(model, alias).version)
        address = client.get_model_version_download_uri(model, version)
        out.mkdir(parents=True, exist_ok=True)
        mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(out), tracking_uri=uri)
    except (MlflowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"{name}: MLflow at {_without_password(uri)} has no such model ({reason})"
        ) from error
    return out


def promote(record: AuditRecord, alias: str, root: Path) -> str:
    """Put an alias on the registered version that a record is about, and return ``models:/NAME/VERSION``.

    Raises
    ------
    ModelError
        If no version has the digest of the record's model.
    ServiceError
        If MLflow does not take it.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    digest, uri = record.digests.get("model"), tracking_uri(root)
    shown = _without_password(uri)
    try:
        client = MlflowClient(uri)
        own = [
            found
            for found in client.search_model_versions(f"name = '{_quoted(record.audit)}'")
            if digest and found.tags.get("candling.digest") == digest
        ]
        if not own:
            raise ModelError(
                f"{record.audit}/{record.subject}: MLflow at {shown} has no version of this model; "
                "run the audit again, which registers it"
            )
        version = max(own, key=lambda found: int(found.version)).version
        client.set_registered_model_alias(record.audit, alias, str(version))
    except MlflowException as error:
        first_line = str(error).partition("\n")[0]
        raise ServiceError(f"MLflow at {shown} did not take the alias {alias!r} ({first_line})") from error
    return f"models:/{record.audit}/{version}"


def _quoted(name: str) -> str:
    return name.replace("'", "\\'")


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", uri)


def publish(
    audit: str,
    records: Mapping[str, Path],
    verdicts: Mapping[str, str],
    models: Mapping[str, Path],
    report: Path,
    params: Mapping[str, Any],
    data_digests: Mapping[str, str],
    *,
    root: Path,
    approve: str | None = None,
) -> dict[str, Any]:
    """Publish an audit to MLflow; what was published before is found again rather than repeated.

    Parameters
    ----------
    audit
        Name of the audit: experiment ``candling/<audit>``, registered model ``<audit>``.
    records
        Folder or file of each subject's record, in the order in which the story is told.
    verdicts
        Each subject's verdict; a subject without one counts as 'incomplete'.
    models
        Folder of each subject's model; a subject whose model is missing gets a run and no version.
    report
        The report; `metrics.json` is taken from beside it.
    params
        The audit's params, logged under dotted names.
    data_digests
        Digest of each data split.
    root
        The repository: its git revision, and the embedded database where no server is named.
    approve
        The subject that may be aliased 'approved', and is if it passed; by default the last that passed.

    Returns
    -------
    dict
        ``uri``, ``experiment``, ``run``, ``runs`` and ``versions`` by subject, and ``approved``, the
        version that this audit put the alias on, or None.

    Raises
    ------
    ServiceError
        If MLflow fails midway; the runs that it was writing are marked FAILED.
    ModelError
        If a model is not the one that its record is about.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    # It tells at length how it creates its tables.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    subjects = [
        _subject(name, path, verdicts.get(name, "incomplete"), models.get(name))
        for name, path in records.items()
    ]
    if approve is None:
        approve = next((s.name for s in reversed(subjects) if s.verdict == "passed"), None)
    uri = tracking_uri(root)
    try:
        publisher = _Publisher(MlflowClient(uri), audit, root, flattened(params), data_digests)
        return {"uri": _without_password(uri), **publisher.publish(subjects, report, approve)}
    except (MlflowException, OSError) as error:
        first_line = str(error).partition("\n")[0]
        raise ServiceError(
            f"MLflow at URI {_without_password(uri)} did not take the audit ({first_line})"
        ) from error


@dataclass(frozen=True)
class _Subject:
    """What is published about one subject, read and checked before anything is written."""

    name: str
    verdict: str
    file: Path
    record: AuditRecord
    record_digest: str
    model: Path | None
    model_digest: str | None


def _subject(name: str, path: Path, verdict: str, model: Path | None) -> _Subject:
    file = path / "record.json" if path.is_dir() else path
    record = read_record(file)
    digest = record.digests.get("model")
    if model is not None:
        from candling.models import folder_digest, model_digest

        found = folder_digest(model) if record.kind == "language" else model_digest(model)
        # What is approved must be what was audited.
        if digest not in (None, found):
            raise ModelError(f"{model}: not the model that {file} is about; run the audit again")
        digest = found
    return _Subject(name, verdict, file, record, _sha256(file.read_bytes()), model, digest)


class _Publisher:
    """One publication: the client, and what all its runs share."""

    def __init__(
        self,
        client: MlflowClient,
        audit: str,
        root: Path,
        params: Mapping[str, str],
        data_digests: Mapping[str, str],
    ) -> None:
        self.client = client
        self.audit = audit
        self.params = params
        self.experiment = self._experiment(root)
        revision = git_revision(root)
        self.tags = {"candling.audit": audit}
        self.tags |= {f"candling.data_digest.{_legal(name)}": digest for name, digest in data_digests.items()}
        self.tags |= {"mlflow.source.git.commit": revision} if revision else {}

    def _experiment(self, root: Path) -> str:
        name = f"candling/{self.audit}"
        found = self.client.get_experiment_by_name(name)
        if found is None:
            # A server decides where artifacts go; for a database the client would use the working folder.
            embedded = not os.environ.get("MLFLOW_TRACKING_URI")
            location = (root.absolute() / "mlartifacts").as_uri() if embedded else None
            return self.client.create_experiment(name, artifact_location=location)
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def publish(self, subjects: Sequence[_Subject], report: Path, approve: str | None) -> dict[str, Any]:
        """Write the audit's run with a child and a version a subject, and move the alias."""
        files = [file for file in (report, report.with_name("metrics.json")) if file.is_file()]
        digests = [_sha256(file.read_bytes()) for file in files] + [s.record_digest for s in subjects]
        runs: dict[str, str] = {}
        versions: dict[str, str] = {}
        with self._run(self.audit, _sha256(json.dumps([self.params, digests]).encode()), {}) as (
            parent,
            fresh,
        ):
            if fresh:
                self._log_params(parent)
                for file in files:
                    self.client.log_artifact(parent, str(file))
            for subject in subjects:
                runs[subject.name], version = self._publish_subject(subject, parent)
                # A child that was published before stays under the parent that it had.
                self.client.set_tag(parent, f"candling.run.{subject.name}", runs[subject.name])
                self.client.set_tag(parent, f"candling.verdict.{subject.name}", subject.verdict)
                if version is not None:
                    versions[subject.name] = version
            passed = {s.name for s in subjects if s.verdict == "passed"}
            approved = versions.get(approve) if approve in passed else None
            if approved is not None:
                self.client.set_registered_model_alias(self.audit, ALIAS, approved)
        ids = {"experiment": self.experiment, "run": parent, "runs": runs}
        return {**ids, "versions": versions, "approved": approved}

    @contextmanager
    def _run(self, name: str, digest: str, tags: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
        """The finished run that was made of the same content, or a new one; and whether it is new."""
        found = self.client.search_runs(
            [self.experiment],
            filter_string=f"tags.`candling.record_digest` = '{digest}' and attributes.status = 'FINISHED'",
            max_results=1,
        )
        if found:
            yield found[0].info.run_id, False
            return
        tags = {**self.tags, "candling.record_digest": digest, **tags}
        run = self.client.create_run(self.experiment, run_name=name, tags=tags).info.run_id
        try:
            yield run, True
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell
                self.client.set_terminated(run, "FAILED")
            raise
        self.client.set_terminated(run, "FINISHED")

    def _publish_subject(self, subject: _Subject, parent: str) -> tuple[str, str | None]:
        tags = {"mlflow.parentRunId": parent, "candling.subject": subject.name}
        if subject.model_digest is not None:
            tags["candling.model_digest"] = subject.model_digest
        with self._run(subject.name, subject.record_digest, tags) as (run, fresh):
            if fresh:
                self._log_params(run)
                self._log_measurements(run, subject.record)
                self.client.log_artifact(run, str(subject.file))
                for folder in ("pictures", "tables"):
                    if (subject.file.parent / folder).is_dir():
                        self.client.log_artifacts(run, str(subject.file.parent / folder), folder)
            # Not settled by the record alone: a waiver ends, a baseline moves.
            self.client.set_tag(run, "candling.verdict", subject.verdict)
            return run, None if subject.model is None else self._version(run, subject, subject.model)

    def _log_params(self, run: str) -> None:
        from mlflow.entities import Param

        entries = [Param(name, value) for name, value in self.params.items()]
        for start in range(0, len(entries), _PER_BATCH):
            self.client.log_batch(run, params=entries[start : start + _PER_BATCH])

    def _log_measurements(self, run: str, record: AuditRecord) -> None:
        import pandas as pd

        for measurement in record.measurements:
            if measurement.value is not None:
                self.client.log_metric(run, metric_name(measurement, record.classes), measurement.value)
        rows = [m.model_dump() | {"scope": json.dumps(m.scope, sort_keys=True)} for m in record.measurements]
        # As objects, because MLflow looks for pictures in a way that pandas 3 deprecates for strings.
        table = pd.DataFrame(rows, columns=list(Measurement.model_fields), dtype=object)
        self.client.log_table(run, table, "tables/measurements.json")

    def _version(self, run: str, subject: _Subject, model: Path) -> str:
        """The version whose model lies in `run`, or a new one."""
        for found in self.client.search_model_versions(f"run_id = '{run}'"):
            if found.name == self.audit:
                self.client.set_model_version_tag(
                    self.audit, found.version, "candling.verdict", subject.verdict
                )
                return str(found.version)
        self._register()
        for file in sorted(model.iterdir()):
            self.client.log_artifact(run, str(file), "model")
        tags = {
            "candling.subject": subject.name,
            "candling.digest": subject.model_digest,
            "candling.record_digest": subject.record_digest,
            "candling.verdict": subject.verdict,
        }
        source = f"{self.client.get_run(run).info.artifact_uri}/model"
        return str(self.client.create_model_version(self.audit, source, run, tags=tags).version)

    def _register(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.audit, tags={"candling.audit": self.audit})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def metric_name(measurement: Measurement, classes: Sequence[str]) -> str:
    """The measurement's id and scope as a legal MLflow metric, classes as their indices.

    Examples
    --------
    >>> metric_name(Measurement(id="accuracy.group", scope={"group": "tank, snow"}, value=1), ["tank"])
    'accuracy.group.group_tank_snow-bdc3e9'
    """
    parts = [
        f"{key}_{classes.index(value) if value in classes else value}"
        for key, value in sorted(measurement.scope.items())
    ]
    return _legal(".".join([measurement.id, *parts]))


def flattened(params: Mapping[str, Any]) -> dict[str, str]:
    """Nested params as dotted names; entries of a list are numbered, plain lists stay one value.

    Examples
    --------
    >>> flattened({"rules": [{"at_least": 0.8}], "classes": ["no_tank", "tank"], "seed": 0})
    {'rules.0.at_least': '0.8', 'classes': '["no_tank", "tank"]', 'seed': '0'}
    """
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, list | tuple) and any(isinstance(entry, Mapping) for entry in value):
            value = {str(index): entry for index, entry in enumerate(value)}
        if isinstance(value, Mapping):
            flat |= {_legal(f"{key}.{name}"): text for name, text in flattened(value).items()}
        else:
            plain = value if isinstance(value, str) else json.dumps(value, default=str)
            flat[_legal(str(key))] = plain
    return flat


def _legal(name: str) -> str:
    """`name` as MLflow takes it, with a digest of the name where something had to go."""
    legal = re.sub(r"[^\w.\-]+", "_", name, flags=re.ASCII)
    if legal == name and len(name) <= _NAME_LENGTH:
        return name
    return f"{legal[: _NAME_LENGTH - 7]}-{_sha256(name.encode())[:6]}"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
