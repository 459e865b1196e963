"""Run by an environment of its own: other people's judges over what we write. Prints a line for each thing that one objects to.

Usage: judge.py sbom FILE | provenance FILE | kubernetes VERSION FILE…
"""

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def judge_sbom(file: str) -> Iterator[str]:
    """CycloneDX's JSON schema, strictly, and its library's own model."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = Path(file).read_text()
    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        yield str(problem)
    bom: Any = Bom.from_json(json.loads(text))  # type: ignore[attr-defined]
    if not bom.components or not bom.validate():
        yield "not a bill of materials"


def judge_provenance(file: str) -> Iterator[str]:
    """The Statement and the predicate as in-toto's messages: an unknown member or another type is an error."""
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    (line,) = Path(file).read_text().splitlines()
    document = json.loads(base64.b64decode(json.loads(line)["payload"], validate=True))
    statement = json_format.ParseDict(document, statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    json_format.ParseDict(document["predicate"], provenance_pb2.Provenance())
    return
    yield


def judge_kubernetes(version: str, *files: str) -> Iterator[str]:
    """Kubernetes' own schemas of one version; a member that they do not have is an error."""
    import kubernetes_validate
    import yaml

    for file in files:
        for document in yaml.safe_load_all(Path(file).read_text()):
            for one in document["items"] if document["kind"] == "List" else [document]:
                try:
                    kubernetes_validate.validate(one, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    yield f"{Path(file).name}: {one['kind']}: {error.message}"


JUDGES = {"sbom": judge_sbom, "provenance": judge_provenance, "kubernetes": judge_kubernetes}
for problem in JUDGES[sys.argv[1]](*sys.argv[2:]):
    print(problem)
