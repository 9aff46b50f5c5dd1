"""Variants of the OS definition: an image with its parameters, under a name of its own.

A variant is a file of NAME=value lines in the directory of variants, NAME.conf. It is made from an
image, and from what snf-image-creator has written beside it: IMAGE.meta, a JSON object with the
image's format and properties, or IMAGE.variant, the same as such lines. Both may come from
wherever the image comes from: nothing else is taken from them, and that is checked.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snf_core import extension
from snf_core.errors import ConfigError, InvalidValueError, SnfError
from snf_core.ganeti import glue, installation
from snf_core.ganeti.generation import Ganeti
from snf_core.ganeti.installation import File
from snf_core.image import deploy, parameters, properties, selection, tasks
from snf_core.image.properties import Properties

if TYPE_CHECKING:
    from collections.abc import Mapping

    from snf_core.config import Config
    from snf_core.image.parameters import Parameters

LOG = logging.getLogger(__name__)

_MOST = 1 << 20
"""Bytes of a description that is read."""
_SCHEME = "local://"
_ROOT = Path("/")
"""The node's root directory. The image is always looked for on the running node."""


@dataclass(frozen=True)
class Variant:
    """A variant that can be deployed, or the reason why it cannot be."""

    name: str
    image: str
    """Its identifier and format."""
    error: str = ""


def listing(config: Config, root: Path = _ROOT) -> list[Variant]:
    """All variants that have a file on the node, broken ones too."""
    found = []
    directory = _directory(config, root)
    for name in parameters.variants(directory):
        try:
            values = parameters.assignments(parameters.variant_file(directory, name))
            checked = _checked(values, config)
            found.append(Variant(name, f"{checked.img_id} ({checked.img_format})"))
        except (SnfError, FileNotFoundError) as error:
            found.append(Variant(name, "", str(error)))
    return found


def add(
    name: str,
    image: str,
    config: Config,
    root: Path = _ROOT,
    *,
    image_format: str = "",
    more: str = "",
    force: bool = False,
) -> tuple[Path, list[str]]:
    """Make the variant's file, and publish its name; see ``describe``.

    Return the file and its assignments, for whoever answers for what they say: they may come from
    wherever the image comes from. One that says the same is left as it is. Raises SnfError where
    there is another and ``force`` is not given.
    """
    path = parameters.variant_file(_directory(config, root), name)
    values = describe(image, config, image_format=image_format, more=more)
    lines = [f"{key.upper()}={shlex.quote(value)}" for key, value in values.items()]
    with installation.locked(root):
        if force or not _says(path, values):
            if not force and os.path.lexists(path):
                raise SnfError(
                    f"there is another variant {name!r}: {path}",
                    remedy="remove it, or give --force",
                )
            installation.write([File(path, "".join(f"{line}\n" for line in lines))])
        _publish(config, root)
    return path, lines


def remove(name: str, config: Config, root: Path = _ROOT) -> Path:
    """Remove the variant's file, and its name from Ganeti's list. Raises SnfError."""
    path = parameters.variant_file(_directory(config, root), name)
    with installation.locked(root):
        try:
            path.unlink()
        except OSError as error:
            raise SnfError(
                f"cannot remove variant {name!r}: {path}: {error.strerror}",
                remedy='see "snf ganeti variant list"',
            ) from error
        _publish(config, root)
    return path


def describe(
    image: str, config: Config, *, image_format: str = "", more: str = ""
) -> dict[str, str]:
    """The parameters of a variant for ``image``.

    ``image`` is an image identifier, the path of an image file in the image directory, or of the
    ``.meta`` or ``.variant`` file beside one. ``image_format`` and ``more`` (properties, a JSON
    object) count more than what is found there. Properties that are found there and that no task
    knows are left out, which is warned of in the log. All is checked as a deployment would, and
    the image is opened. Raises SnfError.
    """
    values = _found(image, config)
    known = _known(values.get("img_properties", ""), image, config)
    known |= properties.parse(more, "--properties")
    if known:
        values["img_properties"] = json.dumps(known, ensure_ascii=False)
    if image_format:
        values["img_format"] = image_format
    checked = _checked(values, config)
    with selection.choose_source(checked.img_id, config).open(checked.img_id, checked.img_format):
        pass
    return values


def _directory(config: Config, root: Path) -> Path:
    return glue.variants(Ganeti(root=root), config)


def _says(path: Path, values: Mapping[str, str]) -> bool:
    """Whether a variant's file says just this already."""
    try:
        return path.is_file() and parameters.assignments(path) == values
    except ConfigError:
        return False


def _publish(config: Config, root: Path) -> None:
    """Name the variants in the list of the installed OS definition."""
    names = glue.variants_list(Ganeti(root=root), config)
    if installation.is_ours(names):
        installation.write([names])
    else:
        LOG.warning(
            'Ganeti does not see it before the OS definition is there: "snf ganeti install"'
        )


def _checked(values: Mapping[str, str], config: Config) -> Parameters:
    """The parameters as a deployment of the variant would have them. Raises SnfError."""
    checked = parameters.check(parameters.merged(config, values))
    catalogue = tasks.catalogue(config, checked.properties.get("OSFAMILY").lower())
    deploy.check_request(checked, catalogue, config)
    return checked


def _known(text: str, image: str, config: Config) -> dict[str, str]:
    """Of properties from beside the image those that mean something here."""
    found = properties.parse(text, f"img_properties of {image}")
    wanted = Properties(found)
    catalogue = tasks.catalogue(config, wanted.get("OSFAMILY").lower())
    steps = [step for steps in catalogue.tasks.values() for step in steps]
    unknown = tasks.check_properties(wanted, steps)
    if unknown:
        LOG.warning("%s: left out, as no task knows them: %s", image, ", ".join(sorted(unknown)))
    return {name: value for name, value in found.items() if name not in unknown}


def _found(image: str, config: Config) -> dict[str, str]:
    """The parameters that say of an image what it is."""
    path = Path(image)
    directory = Path(
        extension.make(extension.IMAGE_SOURCE, "local", config).conf.directory
    ).resolve()
    if path.suffix in {".meta", ".variant"} and path.is_file():
        file = path.with_suffix("")
        values = _meta(path) if path.suffix == ".meta" else _variant(path)
        # The path that a variant gives is the image's where it was made.
        if path.suffix == ".meta" or file.exists():
            values["img_id"] = _identifier(file, directory)
        return values
    named = directory / image.removeprefix(_SCHEME).lstrip("/")
    if "://" not in image and path.is_file() and (path.is_absolute() or not named.is_file()):
        image, named = _identifier(path, directory), path
    beside = named.with_name(f"{named.name}.meta")
    return {"img_id": image} | (_meta(beside) if beside.is_file() else {})


def _identifier(file: Path, directory: Path) -> str:
    """The identifier of an image file."""
    path = file.absolute().parent.resolve() / file.name
    if not path.is_relative_to(directory):
        raise InvalidValueError(
            f"{file} is not in the image directory {directory}",
            remedy="put the image and what describes it there, or set [image.source.local] "
            "directory",
        )
    return f"{_SCHEME}{path.relative_to(directory)}"


def _variant(file: Path) -> dict[str, str]:
    """What an image's variant file says of it. A key or a password of its maker's is refused."""
    _check_size(file)
    values = parameters.assignments(file)
    others = values.keys() - {"img_id", "img_format", "img_properties"}
    if others:
        raise InvalidValueError(
            f"{file} says more than what its image is: {', '.join(sorted(others)).upper()}",
            remedy="remove that, or copy the file into [image] variants if you mean it",
        )
    return values


def _meta(file: Path) -> dict[str, str]:
    """What an image's JSON description says of it; what else is in there is ignored."""
    _check_size(file)
    try:
        document = json.loads(file.read_bytes())
        found, kind = document.get("properties", {}), document.get("disk-format", "")
        well = isinstance(found, dict) and isinstance(kind, str)
    except OSError as error:
        raise SnfError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, AttributeError, RecursionError):
        well = False
    if not well:
        raise InvalidValueError(
            f"{file} does not describe an image",
            remedy='it should hold {"properties": {"NAME": "value", ...}, "disk-format": "..."}',
        )
    return {"img_properties": json.dumps(found)} | ({"img_format": kind} if kind else {})


def _check_size(file: Path) -> None:
    if file.stat().st_size > _MOST:
        raise InvalidValueError(f"{file} is too large to describe an image")
