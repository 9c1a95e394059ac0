"""The commands by name: what each one does, and where its options and its function are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pixcloud.errors import ConfigError


@dataclass(frozen=True)
class Command:
    """What a command does, where its options are described and which function does the job.

    options: "module:name" of a config dataclass, or empty where the function's own signature has
    them. layered: whether recipes and config files apply.
    """

    job: str
    function: str
    options: str = ""
    layered: bool = False


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "the whole journey on the embedded data: pairs, pre-training, probe, table, page",
        "pixcloud.demo:demo",
    ),
    "pretrain": Command(
        "pre-train an encoder on pairs of clouds and pictures",
        "pixcloud.trainer:pretrain",
        "pixcloud.config:PretrainConfig",
        layered=True,
    ),
    "probe": Command(
        "linear SVM on frozen features: what an encoder is worth",
        "pixcloud.evaluate.command:probe",
        "pixcloud.evaluate.settings:ProbeConfig",
    ),
    "finetune": Command(
        "fine-tune an encoder for classification, with all labels or few",
        "pixcloud.evaluate.training_command:finetune",
        "pixcloud.evaluate.training_settings:FinetuneConfig",
    ),
    "fewshot": Command(
        "few-shot classification, CrossPoint's or Point-BERT's way",
        "pixcloud.evaluate.training_command:fewshot",
        "pixcloud.evaluate.training_settings:FewShotConfig",
    ),
    "retrieve": Command(
        "find clouds by pictures, pictures by clouds, and clouds by clouds",
        "pixcloud.evaluate.retrieval_command:retrieve",
        "pixcloud.evaluate.retrieval_settings:RetrieveConfig",
    ),
    "evaluate": Command(
        "every protocol that the data allow: what an encoder is worth, in one file",
        "pixcloud.evaluate.evaluation:evaluate_encoder",
        "pixcloud.evaluate.evaluation_settings:EvaluateConfig",
    ),
    "classify": Command(
        "the class of your own clouds and meshes, by a fine-tuned classifier",
        "pixcloud.evaluate.classify:classify",
    ),
    "segment": Command(
        "part segmentation, with all shapes or few",
        "pixcloud.evaluate.training_command:segment",
        "pixcloud.evaluate.segment_settings:SegmentConfig",
    ),
    "parts": Command(
        "the parts of your own clouds and meshes, by a segmenter",
        "pixcloud.evaluate.label_parts:parts",
    ),
    "embed": Command(
        "features of any number of clouds and meshes into a store",
        "pixcloud.evaluate.embed:embed",
    ),
    "search": Command(
        "the stored shapes nearest to a cloud, a mesh or a picture",
        "pixcloud.evaluate.search:search",
    ),
    "log": Command(
        "bring a run to TensorBoard or Weights & Biases, as far as they do not have it",
        "pixcloud.loggers.upload:log",
    ),
    "report": Command("a run, or several side by side, as one page", "pixcloud.report.page:report"),
    "data make": Command("meshes to pairs and a labelled split", "pixcloud.data.make:make_pairs"),
    "data check": Command(
        "what is on disk against what should be", "pixcloud.data.check:check_source"
    ),
    "import crosspoint": Command(
        "weights of the original CrossPoint DGCNN", "pixcloud.import_weights:import_crosspoint"
    ),
    "import crosspoint_pictures": Command(
        "weights of the original CrossPoint picture tower",
        "pixcloud.import_pictures:import_crosspoint_pictures",
    ),
    "import dgcnn": Command(
        "weights of a plain DGCNN classifier", "pixcloud.import_classifiers:import_dgcnn"
    ),
    "import dgcnn_partseg": Command(
        "weights of a DGCNN for part segmentation, with its head",
        "pixcloud.import_segmenter:import_dgcnn_partseg",
    ),
    "import pct": Command(
        "weights of the best-known PCT port", "pixcloud.import_classifiers:import_pct"
    ),
    "export": Command(
        "an encoder, classifier or segmenter as safetensors or ONNX",
        "pixcloud.share.command:export_model",
    ),
    "push": Command(
        "an encoder, classifier or segmenter to the Hugging Face Hub, with its card",
        "pixcloud.share.push:push_to_hub",
    ),
    "doctor": Command("what this machine can do", "pixcloud.doctor:doctor"),
}


# Commands that make something beside what they print.
WORKING = (
    *("demo", "pretrain", "probe", "finetune", "fewshot", "classify", "segment", "parts"),
    *("retrieve", "evaluate", "embed", "search", "log", "data", "import", "export", "push"),
)
# Those whose processes share the work, where a launcher starts several.
SHARING = ("pretrain", "probe")


def refuse_copies(name: str, environment: Mapping[str, str] = os.environ) -> None:
    """Check that a command that runs in one process was started once.

    Under torchrun or srun each copy would do all of it, and write the same results.

    Raises:
        ConfigError: if a launcher started several.

    Example:
        >>> refuse_copies("pretrain", {"RANK": "0", "WORLD_SIZE": "8"})
        >>> refuse_copies("finetune", {"RANK": "0", "WORLD_SIZE": "1"})
    """
    if name in SHARING or name.split()[0] not in WORKING:
        return
    if "RANK" in environment:
        count = environment.get("WORLD_SIZE", "1")
    else:
        count = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if count.strip() not in ("", "1"):
        raise ConfigError(
            f"pixcloud {name} runs in one process, and a launcher started {count}: start it "
            f"without torchrun, or by srun --ntasks 1 (what several processes share is "
            f"{' and '.join(SHARING)})"
        )
