"""``dream-cad generate``: a mesh from a prompt or a picture, in this process."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from dream_cad.cli.console import generation_bar, merge_options, show_json
from dream_cad.cli.package import ProfileOption, SizeOption, write_package
from dream_cad.cli.pictures import Pictures, first_picture, read_pictures
from dream_cad.exceptions import GenerationError, StorageError
from dream_cad.models.base import GenerationResult, Model3D, ProgressCallback
from dream_cad.models.factory import ModelFactory
from dream_cad.models.options import validate_options
from dream_cad.models.registry import ModelRegistry
from dream_cad.profiles import find_profile
from dream_cad.prompts import check_prompt
from dream_cad.settings import get_settings

_NAME_CHARS = 48


def _complete_model(incomplete: str) -> list[str]:
    """Return what a shell offers for the beginning of a model's name."""
    return [name for name in ModelRegistry().list_models() if name.startswith(incomplete)]


Prompt = Annotated[str | None, typer.Argument(help="Text description of one object.")]
ImagePaths = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="[VIEW=]FILE",
        help="Picture to start from instead; several, where the model takes them.",
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Model; DREAM_CAD_DEFAULT_MODEL if not given.",
        autocompletion=_complete_model,
    ),
]
Seed = Annotated[int | None, typer.Option(help="Same seed, same mesh.")]
Steps = Annotated[int | None, typer.Option(help="Denoising steps of the text stage.")]
Guidance = Annotated[float | None, typer.Option(help="Classifier-free guidance scale.")]
Negative = Annotated[str | None, typer.Option(help="What the picture should not show.")]
Resolution = Annotated[int | None, typer.Option(help="Mesh grid resolution.")]
Texture = Annotated[bool | None, typer.Option("--texture/--no-texture", help="Bake a UV texture.")]
FreeOptions = Annotated[
    list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Any other option.")
]


def generate(
    prompt: Prompt = None,
    image: ImagePaths = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File to write; in DREAM_CAD_OUTPUT_DIR if not given."),
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="obj, ply, stl or glb; else by the file's suffix.")
    ] = None,
    preview: Annotated[Path | None, typer.Option(help="Also write a turntable PNG here.")] = None,
    model: ModelName = None,
    seed: Seed = None,
    steps: Steps = None,
    guidance: Guidance = None,
    negative: Negative = None,
    resolution: Resolution = None,
    texture: Texture = None,
    option: FreeOptions = None,
    files: Annotated[
        Path | None,
        typer.Option(help="Folder for what the model made beside the mesh, such as splats."),
    ] = None,
    profile: ProfileOption = None,
    profile_size: SizeOption = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the receipt.")] = False,
) -> None:
    """Generate a mesh from PROMPT or --image on this machine.

    With --profile also write NAME-PROFILE.zip beside it: what that engine or printer wants.
    """
    pictures = read_pictures(image)
    if (prompt is None) == (pictures is None):
        raise typer.BadParameter("give either a prompt or --image.")
    text = None if prompt is None else check_prompt(prompt)
    named = {
        "seed": seed,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "negative_prompt": negative,
        "resolution": resolution,
        "texture": texture,
    }
    options = merge_options(named, option or [])
    if profile is not None:
        find_profile(profile)  # before minutes are spent
    target = output or _default_path(text or _stem(pictures), format)
    with ModelFactory.create_model(model) as created:
        result = _run(created, text, pictures, validate_options(type(created), options))
        path = result.save(target, format)
    stored = [] if files is None else result.save_files(files)
    if preview is not None:
        _write_preview(result, preview)
    if profile is not None:
        package = target.with_name(f"{target.stem}-{profile}.zip")
        title = text or target.stem
        write_package(result.to_mesh(), profile, package, title=title, size=profile_size)
    _show(result, path, stored, preview, json_output)


def _run(
    model: Model3D, prompt: str | None, pictures: Pictures | None, options: dict[str, Any]
) -> GenerationResult:
    run: Callable[..., GenerationResult | None]
    run = model.generate_from_text
    if prompt is None:
        is_one = isinstance(pictures, Path)
        run = model.generate_from_image if is_one else model.generate_from_views
    source: Any = pictures if prompt is None else prompt
    with generation_bar() as advance:
        result = run(source, **options, **_progress_argument(run, advance))
    if result is None:
        raise GenerationError(f"Model {model.name!r} returned no result.")
    return result


def _stem(pictures: Pictures | None) -> str:
    first = first_picture(pictures)
    return "" if first is None else first.stem


def _progress_argument(
    run: Callable[..., object], advance: ProgressCallback
) -> dict[str, ProgressCallback]:
    """Models of users need not take a progress callback."""
    parameters = inspect.signature(run).parameters
    return {"progress": advance} if "progress" in parameters else {}


def _default_path(title: str, format: str | None) -> Path:
    """Return a path in DREAM_CAD_OUTPUT_DIR named after the input that is not taken yet."""
    stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:_NAME_CHARS] or "mesh"
    folder, suffix = get_settings().output_dir, format or "glb"
    path, number = folder / f"{stem}.{suffix}", 2
    while path.exists():
        path, number = folder / f"{stem}-{number}.{suffix}", number + 1
    return path


def _write_preview(result: GenerationResult, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        result.preview().save(path, format="PNG")
    except OSError as error:
        raise StorageError(f"The preview could not be written to {path}: {error}.") from error


def _show(
    result: GenerationResult,
    path: str,
    files: list[str],
    preview: Path | None,
    json_output: bool,
) -> None:
    if json_output:
        receipt = {
            "path": path,
            "files": files,
            "preview": None if preview is None else str(preview),
            "model": result.model_name,
            "vertices": len(result.vertices),
            "faces": len(result.faces),
            "generation_time_s": result.generation_time,
            "metadata": result.metadata,
        }
        show_json(receipt)
        return
    for name in (path, *files):
        typer.echo(name)
    if preview is not None:
        typer.echo(preview)
    checkpoint = result.metadata.get("checkpoint")
    weights = f", {checkpoint['kind']} weights" if isinstance(checkpoint, dict) else ""
    typer.echo(
        f"{len(result.faces)} faces in {result.generation_time:.1f} s "
        f"({result.model_name}{weights})",
        err=True,
    )
