"""The templates of this package: what is put into one is escaped, unless it is markup already."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


def rendered(name: str, **values: object) -> str:
    return _environment().get_template(name).render(values)


@cache
def source(name: str) -> str:
    """A file that is no template, as it stands."""
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0].strip()


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("gradproof.telling", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
