"""Guilt: which video ended its worker, by crash or by silence, told from one that merely was there."""

from collections import Counter
from collections.abc import Sequence

from respike.data.engines.base import Death
from respike.errors import UnreadableVideoError

DEFAULT_VIDEO_TIMEOUT_SECONDS = 120.0
# a worker can be killed for what others do, so a video is suspected after its first death and guilty after another
_DEATHS_TO_CONVICT = 2


def refuse_guilty(deaths: Sequence[Death]) -> None:
    """Raise UnreadableVideoError for a video at which workers ended, `deaths` being these."""
    if any(death.hung for death in deaths):
        raise UnreadableVideoError("timeout", "no frame came in time")
    if len(deaths) >= _DEATHS_TO_CONVICT:
        cause, _ = Counter(death.cause for death in deaths).most_common(1)[0]
        raise UnreadableVideoError("crash", f"its worker died {len(deaths)} times: {cause}")
