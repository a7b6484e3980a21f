"""What names an unsequenced request, so that an agent's blind retry is stored once.

`Idempotency-Key`, chosen by the client, never ages (grade 1). Without one, the digest of the decoded body
and the query string, within who sent it: tenant, surface, principal and peer address (grade 3). The same
bytes from another address are other rows: a double is better than a loss.

The digest is BLAKE3: as hard to collide with as SHA-256, at a third of its CPU (docs/adr/0010).
"""

from blake3 import blake3

from ingestor.batch import Identity
from records.ids import digest_id


def identity_of(
    *,
    tenant: str,
    surface: str,
    principal: str,
    peer: str,
    key: str | None,
    body: bytes,
    query: str,
    piece: int | None = None,
    head: bytes = b"",
) -> Identity:
    """The identity of a request, or of its `piece` (from 0) when a long stream is committed in pieces.

    `head`: digest of the stream's first bytes. It keeps equal pieces of different streams apart.
    """
    number = b"" if piece is None else str(piece).encode()
    if key:
        scope = digest_id(b"key", tenant.encode(), surface.encode(), principal.encode())
        return Identity(scope, digest_id(b"key", key.encode(), number), ages=False, grade=1)
    scope = digest_id(tenant.encode(), surface.encode(), principal.encode(), peer.encode())
    content = digest_id(body_digest(body), query.encode(), number, head)
    return Identity(scope, content, ages=True, grade=3)


def body_digest(body: bytes) -> bytes:
    """32 bytes of BLAKE3; releases the GIL. Part of what names a request: never change it unseen."""
    return blake3(body).digest()
