"""GLUE. A Dask cluster in place of this machine's processes. Needs the extra [distributed].

Workers import verify and must see the model under the same name or path. What they send back is checked
by the kernel in the scan's own process, like any other row.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from verify.errors import ModelUnavailableError
from verify.extras import install

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

# A task whose worker dies is given to another one so many times.
_RETRIES = 5


@contextlib.contextmanager
def cluster(address: str) -> Iterator[tuple[Executor, int]]:
    """(an executor on the cluster, its number of threads). ModelUnavailableError where there is none."""
    try:
        from distributed import Client
    except ImportError:
        raise ModelUnavailableError(f"--scheduler needs Dask: {install('distributed')}") from None
    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise ModelUnavailableError(f"no Dask scheduler at {address[:200]}: {error}") from None
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise ModelUnavailableError(
                f"the scheduler at {address[:200]} has no workers: start some with "
                "`dask worker ADDRESS --nthreads 1`"
            )
        yield client.get_executor(retries=_RETRIES, pure=False), threads
