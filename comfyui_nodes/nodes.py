"""The nodes. Inputs are positional in saved workflows: add new ones at the end."""

from __future__ import annotations

from comfy_api.latest import io

from .connection import AUTOMATIC, ModelHandle, offered_models
from .job import run_job, watched
from .tensors import image_of, latent_of

SIZE_STEP = 16
MAX_SIZE = 16384
MAX_SEED = 0xFFFFFFFFFFFFFFFF

LanceModelSocket = io.Custom("LANCE_MODEL")


def size_problem(name: str, value: int) -> str | None:
    """What is wrong with a width or height, if anything."""
    if SIZE_STEP <= value <= MAX_SIZE and value % SIZE_STEP == 0:
        return None
    return f"{name} must be a multiple of {SIZE_STEP} from {SIZE_STEP} to {MAX_SIZE}, is {value}"


class LanceModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LanceModel",
            display_name="Lance Model",
            category="lance",
            description="A Lance model held by a lanced daemon. ComfyUI itself loads no weights.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=offered_models(),
                    default=AUTOMATIC,
                    tooltip="A model that the daemon offers. automatic: the one it has loaded, else its first one.",
                ),
                io.String.Input(
                    "endpoint",
                    default="",
                    placeholder="the local daemon",
                    tooltip="Where lanced listens: ipc:///path or tcp://127.0.0.1:port. Empty: the usual place; there"
                    " a daemon is started if none answers.",
                ),
            ],
            outputs=[LanceModelSocket.Output(display_name="lance_model")],
        )

    @classmethod
    def validate_inputs(cls, model: str) -> bool:
        return True  # the daemon at the endpoint knows its models; the menu only knows the usual daemon's

    @classmethod
    def fingerprint_inputs(cls, model: str, endpoint: str) -> str:
        return ModelHandle(endpoint, model).fingerprint()

    @classmethod
    async def execute(cls, model: str, endpoint: str) -> io.NodeOutput:
        handle = ModelHandle(endpoint, model)
        await watched(handle.load)
        return io.NodeOutput(handle)


class LanceTextToImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LanceTextToImage",
            display_name="Lance Text to Image",
            category="lance",
            description="Pictures from a prompt.",
            inputs=[
                LanceModelSocket.Input("lance_model"),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True, tooltip="What the picture shows."),
                io.Int.Input("width", default=768, min=SIZE_STEP, max=MAX_SIZE, step=SIZE_STEP),
                io.Int.Input("height", default=768, min=SIZE_STEP, max=MAX_SIZE, step=SIZE_STEP),
                io.Int.Input("steps", default=30, min=1, max=1000, tooltip="Denoising steps."),
                io.Float.Input(
                    "guidance",
                    default=4.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="How closely the picture follows the prompt; 1 or less is no guidance and twice as fast.",
                ),
                io.Float.Input(
                    "shift",
                    default=3.5,
                    min=0.01,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Timestep shift: higher values spend more steps on the composition, lower ones on detail.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="The noise the picture starts from; the pictures of a batch use seed, seed + 1, ...",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=256, tooltip="How many pictures."),
            ],
            outputs=[
                io.Image.Output(display_name="image"),
                io.Latent.Output(display_name="latent", tooltip="In the scale of the core Wan 2.2 VAE nodes."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, width: int, height: int) -> bool | str:
        return size_problem("width", width) or size_problem("height", height) or True

    @classmethod
    async def execute(
        cls,
        lance_model: ModelHandle,
        prompt: str,
        width: int,
        height: int,
        steps: int,
        guidance: float,
        shift: float,
        seed: int,
        batch_size: int,
    ) -> io.NodeOutput:
        result = await run_job(
            lance_model,
            "t2i",
            cls.hidden.unique_id,
            prompt=prompt,
            width=width,
            height=height,
            num_inference_steps=steps,
            guidance_scale=guidance,
            timestep_shift=shift,
            seed=seed,
            batch_size=batch_size,
            preview=True,
        )
        return io.NodeOutput(image_of(result.pixels), latent_of(result.latents))
