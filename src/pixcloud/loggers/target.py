"""Stage 7, targets: settings -> where a run's lines go, one `Target` per logger asked for.

Before it: `pixcloud.config`. After it: `followers`, `follow`, `session` and `upload`, which hand a
target from process to process as JSON.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path

from pixcloud.config import PretrainConfig
from pixcloud.errors import ConfigError
from pixcloud.ranges import logger_names

# What `module:class` speaks to the service; only `session` imports them.
BACKENDS = {
    "tensorboard": "pixcloud.loggers.tensorboard_files:TensorBoardFiles",
    "wandb": "pixcloud.loggers.wandb_run:WandbRun",
}
PUBLIC = "https://api.wandb.ai"


@dataclass(frozen=True, kw_only=True)
class Target:
    """One logger of one run.

    name: tensorboard or wandb; run: the run folder, absolute; backend: module:class; mode, url,
    project, entity, title: as in `WandbConfig`; timeout: seconds without progress after which an
    attempt is given up; drain: seconds that it may go on when training has ended; resumed: the step
    from which training goes on, beyond which earlier lines no longer count.
    """

    name: str
    run: str
    backend: str
    mode: str = ""
    url: str = ""
    project: str = ""
    entity: str = ""
    title: str = ""
    timeout: float = 60.0
    drain: float = 10.0
    resumed: int | None = None

    @property
    def folder(self) -> Path:
        """Where everything about it lies."""
        return Path(self.run) / "logs"

    @property
    def server(self) -> str:
        """The server's address; empty for what is written to the disk."""
        if self.name != "wandb" or self.mode == "offline":
            return ""
        return self.url or os.environ.get("WANDB_BASE_URL", "") or PUBLIC

    @property
    def destination(self) -> str:
        """What tells places apart that hold different parts of the run."""
        return " ".join(w for w in (self.server, self.entity, self.project) if w and self.server)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def from_json(text: str) -> Target:
    """A target that `Target.to_json` wrote."""
    return Target(**json.loads(text))


def target_of(config: PretrainConfig, name: str, run: Path, resumed: int | None = None) -> Target:
    """The target of one logger.

    Args:
        config: of the run.
        name: tensorboard or wandb.
        run: the run folder.
        resumed: the step from which training goes on.
    """
    run = run.expanduser().absolute()
    settings = config.wandb
    return Target(
        name=name,
        run=str(run),
        backend=BACKENDS[name],
        mode=settings.mode if name == "wandb" else "",
        url=settings.url,
        project=settings.project,
        entity=settings.entity,
        title=settings.name or run.name,
        timeout=settings.timeout,
        drain=settings.drain,
        resumed=resumed,
    )


def require_packages(log: str) -> None:
    """Check, without importing them, that the packages of the loggers in `log` are there.

    Raises:
        ConfigError: naming the one that is missing, and how to install it.
    """
    for name in logger_names(log):
        spec = importlib.util.find_spec(name)
        # A folder of that name, which wandb leaves where it ran, is no package.
        if spec is None or spec.origin is None:
            raise ConfigError(
                f"--log {name}: the package {name} is not installed; "
                f'pip install "pixcloud[{name}]", or leave it out of --log'
            )
