"""The service's OpenAPI description: requests made from it, fitting and unfitting, are answered as it says."""

from collections.abc import Callable, Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from flows.service.options import Options
from tests.helpers.sampling import sampled
from tests.helpers.service import Running, running
from tests.helpers.several_models import template

pytestmark = pytest.mark.timeout(600)
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
HEADERS = {"authorization": "Bearer described"}


@pytest.fixture(scope="module")
def service(postgres: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With a token, over tables that serve two models."""
    with pytest.MonkeyPatch.context() as environment, template(postgres, ("hashing/4", "hashing/8"), 5) as name:
        environment.setenv("DATABASE_URL", postgres(name))
        environment.setenv("VECFERRY_HOME", str(tmp_path_factory.mktemp("home")))
        environment.setenv("VECFERRY_TOKEN", "described")
        with running(Options()) as started:
            yield started


@pytest.mark.parametrize("examples", sampled([10, 100], 10))
def test_requests_of_the_description(service: Running, examples: int) -> None:
    """No request is answered by a 5xx, or by a status, a type or a body that the description does not have."""
    schema = schemathesis.openapi.from_url(f"{service.address}/openapi.json", headers=HEADERS)
    seen: set[int] = set()
    with requests.Session() as session:
        session.headers.update(HEADERS)
        for result in schema.get_all_operations():
            operation = result.ok()
            parameters = bool(operation.body or operation.query or operation.path_parameters)
            for mode in GenerationMode if parameters else [GenerationMode.POSITIVE]:

                @settings(
                    max_examples=examples if parameters else 1,
                    deadline=None,
                    database=None,
                    derandomize=examples == 10,
                    suppress_health_check=list(HealthCheck),
                )
                @given(case=operation.as_strategy(mode))
                def ask(case: Case) -> None:
                    response = case.call(base_url=service.address, session=session)
                    seen.add(response.status_code)
                    case.validate_response(response, checks=CHECKS)

                ask()
    assert {200, 404, 422} <= seen, "nothing was accepted, or nothing refused"
