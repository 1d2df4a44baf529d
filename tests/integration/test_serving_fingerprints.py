"""What Postgres computes from a row is what Python computes from the same values."""

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from loreline.postgres import connect
from loreline.serving.fingerprints import fingerprint, halfvec_sha256, vector_sha256

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = arrays(np.float32, st.integers(1, 20), elements=FLOATS)
HALVES = arrays(np.float32, st.integers(1, 20), elements=st.floats(-65_519, 65_519, width=32))

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


@ONE_CONNECTION
@given(TEXTS, HALVES, st.lists(TEXTS, max_size=5))
def test_both_sides_agree_on_a_fingerprint_of_halves(postgres, text, vector, principals):
    in_postgres = postgres(
        "select serving.fingerprint(%s, %s::text::vector::halfvec, %s::text[])",
        text,
        str([float(x) for x in vector]),
        principals,
    )
    assert in_postgres == fingerprint(text, vector, principals, "halfvec")


def every_rounding() -> np.ndarray:
    """What rounding to half precision can meet, as float32: shape (vectors, 100).

    Every positive half, subnormal ones among them, the middle between it and the next, where
    rounding goes to the even one, and the float32 on either side of that middle.
    """
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (halves + np.append(halves[1:], np.float32(65_536))) / 2
    beside = [np.nextafter(middles, np.float32(end)) for end in (0, np.inf)]
    # From the last middle on there is no half to round to.
    values = np.concatenate([halves, middles[:-1], beside[0], beside[1][:-1]])
    values = np.concatenate([values, -values])
    return np.resize(values, (-(-len(values) // 100), 100))


def test_halves_are_rounded_as_postgres_rounds_them(settings):
    vectors = every_rounding()
    random = np.random.default_rng(5)
    ordinary = random.normal(size=(2_000, 100)).astype(np.float32)
    vectors = np.concatenate([vectors, ordinary, ordinary * np.float32(1e-7)])
    assert len(vectors) > 4_000
    with connect(settings, autocommit=True) as connection:
        digests = [
            connection.execute(
                "select encode(sha256(halfvec_send(%s::real[]::vector::halfvec)), 'hex')",
                [vector.tolist()],
            ).fetchone()[0]
            for vector in vectors
        ]
    assert digests == [halfvec_sha256(vector) for vector in vectors]


@pytest.mark.parametrize("value", [65_520.0, -65_520.0, 1e30])
def test_what_a_half_cannot_hold_is_refused_on_both_sides(postgres, value):
    assert halfvec_sha256(np.array([1, value], np.float32)) is None
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        postgres("select %s::text::vector::halfvec", str([1.0, value]))
    largest = float(np.nextafter(np.float32(65_520), np.float32(0)))
    assert postgres("select %s::text::vector::halfvec::text", str([largest])) == "[65504]"
