"""What one version wrote every later one reads: `fixtures/formats.json` has the names that each version used.

Whoever changes them is told here what to write. Whole runs of old versions are opened in `test_old_runs.py`.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from conftest import METHODS
from helpers import formats

import jaxclust
from jaxclust import methods, views
from jaxclust.run import checkpoint, config
from jaxclust.run.errors import ConfigError
from jaxclust.run.schema import settings
from jaxclust.training import configs, optim

KNOWN = formats.known()


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """What has come and gone, a line each."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif isinstance(old, list) and isinstance(new, list):
        yield from (f"{name} has no {x!r} any more" for x in old if x not in new)
        yield from (f"{name} has {x!r}, which is new" for x in new if x not in old)
    elif old != new:
        yield f"{name} was {json.dumps(old)} and is {json.dumps(new)}"


def test_what_this_version_writes_is_written_down():
    changed = [*differences(KNOWN.get(jaxclust.__version__, {}), formats.today())]
    assert not changed, (
        f"jaxclust {jaxclust.__version__} writes and reads other names than tests/fixtures/formats.json has for it:\n  "
        + "\n  ".join(changed)
        + "\nWhere the other tests of this file pass, runs of older versions are still read: write it down with\n  "
        + formats.COMMAND
    )


def as_version_had_it(version: str, method: str) -> dict[str, Any]:
    """The config of a run of the digits, with the settings of that version and no others."""
    cfg = json.loads(formats.small(method).to_json())
    fields = KNOWN[version]["settings"]
    fields = fields | {"method": fields[f"method.{method}"]}
    for section in cfg.keys() & fields.keys():
        cfg[section] = {name: cfg[section].get(name) for name in fields[section]}
    for section in configs.SCHEMAS.keys() - fields.keys():
        del cfg[section]
    return cfg


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("version", KNOWN)
def test_a_config_of_an_older_version_is_read(version, method, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(as_version_had_it(version, method)))
    try:
        cfg = configs.saved(tmp_path)
    except ConfigError as e:
        pytest.fail(
            f"a run of jaxclust {version} has a setting that is gone ({e}); take it out of what such a run keeps, or "
            f"translate it, in `saved` of jaxclust/training/configs.py before it looks for what it does not know"
        )
    sections = {name: cls for name, cls in configs.schemas(cfg).items() if name != "optim"}
    try:
        for name, cls in sections.items():
            settings(cls, cfg[name], name)
        optim.sections(cfg.optim)
        views.make(cfg.views, cfg.data.size)
        methods.load(method).make(cfg)
    except (ConfigError, ValueError) as e:
        pytest.fail(
            f"a run of jaxclust {version} lacks a setting that is new, or means another thing by one ({e}); give a new "
            f"one a default in its Settings that does what {version} did, then write it down with\n  {formats.COMMAND}"
        )
    old = config.flatten(as_version_had_it(version, method))
    read = config.flatten(cfg)
    assert {name: read.get(name) for name in old} == old


@pytest.mark.parametrize("version", KNOWN)
def test_a_view_of_an_older_version_is_made(version):
    for section, fields in KNOWN[version]["settings"].items():
        if not section.startswith("views."):
            continue
        name = section.removeprefix("views.")
        assert name in views.known(), f"runs of jaxclust {version} have the view policy {name}, which is gone: keep it"
        now = views.options(name)
        gone = [field for field in fields if field not in now]
        assert not gone, f"runs of jaxclust {version} give the view policy {name} {gone[0]}, which is gone: keep it"
        new = [key for key, option in now.items() if option.default is option.empty and key not in fields]
        assert not new, (
            f"runs of jaxclust {version} do not give the view policy {name} {new[0]}, which is new: give it a default"
        )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("version", KNOWN)
def test_a_state_of_an_older_version_is_read(version, method):
    then = KNOWN[version]
    like = checkpoint.as_written(formats.like(method), then["format"])
    changed = [*differences(then["state"][method], formats.tree(like))]
    assert not changed, (
        f"checkpoints of {method} by jaxclust {version}, of format {then['format']}, have another tree:\n  "
        + "\n  ".join(changed)
        + "\nRaise FORMAT in jaxclust/run/workdir.py, say how those are read in `as_written` and `_upgraded` of "
        f"jaxclust/run/checkpoint.py, and write it down with\n  {formats.COMMAND}"
    )


@pytest.mark.parametrize("version", KNOWN)
def test_a_name_in_an_older_versions_folder_is_known(version):
    gone = set(KNOWN[version]["folder"]) - set(formats.today()["folder"])
    assert not gone, (
        f"runs of jaxclust {version} have {', '.join(sorted(gone))}, of which jaxclust/run/workdir.py knows nothing: "
        f"read it there under its old name, too"
    )


def test_a_change_that_nothing_covers_is_told(monkeypatch, tmp_path):
    """The tests above fail where they should, and say what to write."""
    version = jaxclust.__version__
    then = copy.deepcopy(KNOWN[version])
    then["settings"]["train"].append("patience")
    then["settings"]["net"].remove("stem")
    then["state"]["cc"]["memory"] = {"queue": "float32 4"}
    then["settings"]["views.simclr"] = ["area"]
    monkeypatch.setitem(KNOWN, version, then)
    with pytest.raises(AssertionError, match=r"settings\.train has no 'patience' any more(.|\n)*python -m helpers"):
        test_what_this_version_writes_is_written_down()
    with pytest.raises(pytest.fail.Exception, match=r"a setting that is gone \(.*train\.patience"):
        test_a_config_of_an_older_version_is_read(version, "cc", tmp_path)
    then["settings"]["train"].remove("patience")
    with pytest.raises(pytest.fail.Exception, match=r"lacks a setting that is new.*net\.stem"):
        test_a_config_of_an_older_version_is_read(version, "cc", tmp_path)
    with pytest.raises(AssertionError, match="Raise FORMAT"):
        test_a_state_of_an_older_version_is_read(version, "cc")
    with pytest.raises(AssertionError, match="simclr flip, which is new: give it a default"):
        test_a_view_of_an_older_version_is_made(version)
