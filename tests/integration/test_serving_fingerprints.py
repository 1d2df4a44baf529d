"""What Postgres computes from a row is what Python computes from the same values."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from loreline.postgres import connect
from loreline.serving.fingerprints import fingerprint, vector_sha256

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = arrays(np.float32, st.integers(1, 20), elements=FLOATS)

ONE_CONNECTION = examples(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def postgres(settings):
    with connect(settings, autocommit=True) as connection:
        yield lambda query, *values: connection.execute(
            query.replace("serving.", f"{settings.prefix}serving."), values
        ).fetchone()[0]


@ONE_CONNECTION
@given(TEXTS, VECTORS, st.lists(TEXTS, max_size=5))
def test_both_sides_agree_on_a_fingerprint(postgres, text, vector, principals):
    in_postgres = postgres(
        "select serving.fingerprint(%s, %s::text::vector, %s::text[])",
        text,
        str([float(x) for x in vector]),
        principals,
    )
    assert in_postgres == fingerprint(text, vector, principals)


@ONE_CONNECTION
@given(VECTORS)
def test_both_sides_agree_on_a_vector(postgres, vector):
    in_postgres = postgres(
        "select encode(sha256(vector_send(%s::text::vector)), 'hex')",
        str([float(x) for x in vector]),
    )
    assert in_postgres == vector_sha256(vector)
