"""What a fingerprint depends on; that Postgres agrees is an integration test."""

import numpy as np
import pytest

from loreline.serving.fingerprints import fingerprint, vector_bytes, vector_sha256

VECTOR = np.array([0.5, -2.0], np.float32)


def test_a_vector_is_what_pgvector_sends():
    assert vector_bytes(VECTOR).hex() == "000200003f000000c0000000"
    assert vector_sha256(VECTOR) == vector_sha256(VECTOR.astype(np.float64))


def test_the_order_of_principals_does_not_matter():
    assert fingerprint("a", VECTOR, ["ö", "b", "B"]) == fingerprint("a", VECTOR, ["B", "b", "ö"])


@pytest.mark.parametrize(
    "other", [("b", VECTOR, ["ada"]), ("a", -VECTOR, ["ada"]), ("a", VECTOR, [])]
)
def test_text_vector_and_principals_matter(other):
    assert fingerprint("a", VECTOR, ["ada"]) != fingerprint(*other)
