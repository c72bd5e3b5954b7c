"""What lives in an actor of Ray: a decomposer, loaded once, and the making of one shard after another."""

from featstore.compute import Decomposer
from featstore.errors import WorkerError
from featstore.run import ShardSpec, run_shard
from featstore.worker import Made, Raised, Ready, portable

from .errand import Errand, Process, here

__all__ = ["Maker"]


class Maker:
    """Says what happens in return values: an error that Ray carries would come wrapped in its own."""

    def __init__(self) -> None:
        self.decomposer: Decomposer | None = None

    def hello(self) -> Process:
        """Return which process this is, as soon as it runs."""
        return here()

    def begin(self, errand: Errand) -> Ready | Raised:
        """Check the machine and load the model."""
        try:
            self.decomposer = errand.begin()
        except Exception as error:
            return Raised(portable(error))
        return Ready()

    def make(self, spec: ShardSpec) -> Made | Raised:
        """Make one shard."""
        try:
            if self.decomposer is None:
                raise WorkerError("a shard came before the model was loaded")
            return Made(spec, *run_shard(spec, self.decomposer))
        except Exception as error:
            return Raised(portable(error))
