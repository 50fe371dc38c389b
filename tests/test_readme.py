"""What the README and the pages for users show is real: commands exist, configs compose, files work, links lead somewhere."""

from __future__ import annotations

import json
import re
import runpy
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.config.composing import compose
from pipeline.flow import find_stage
from pipeline.replica import Replica
from pipeline.replica.serving.http_server import Address
from pipeline.replica.serving.service import Service
from pipeline.rows.buckets import bucket_ids
from pipeline.session.resources import Resources
from pipeline.wire import FileTransport, HeaderFrame, decode_frame
from stages.items import FeatureIds, RawBatch
from tests.conftest import ROOT
from tests.contracts.streamed import frames_of
from tests.e2e.command import here
from tests.e2e.jobs import run_job
from tests.e2e.patience import until
from tests.e2e.served import asked
from tests.modules.peers import torchrec

PAGES = (
    "README.md",
    "pipeline/replica/REPLICAS.md",
    "pipeline/stream/STREAMS.md",
    "pipeline/stream/own/README.md",
    "pipeline/wire/broker/BROKERS.md",
)
"""For users: what they show is one text to these tests."""
README = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
COMMAND = re.compile(r"python -m pipeline (\w+)([^\n`]*)")


def file_in_readme(name: str) -> str:
    found = re.findall(rf"<!-- file: {re.escape(name)} -->\n```\w+\n(.*?)```", README, flags=re.DOTALL)
    assert len(found) == 1, f"{len(found)} of the pages show a file {name}"
    return str(found[0])


def test_every_link_leads_to_a_file_or_a_heading() -> None:
    for page in ROOT.rglob("*.md"):
        folder = page.relative_to(ROOT).parts[0]
        if folder.startswith(".") or folder in ("runs", "build", "dist"):
            continue
        for place in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
            name, _, heading = place.partition("#")
            target = page if not name else page.parent / name
            assert target.is_file(), f"{page.relative_to(ROOT)}: {place}"
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            known = {re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings}
            assert not heading or heading in known, f"{page.relative_to(ROOT)}: {place}"


def test_the_readme_leads_to_every_page() -> None:
    first = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert f"({page})" in first, page


@pytest.mark.parametrize("command", sorted({match[1] for match in COMMAND.finditer(README)}))
def test_every_command_and_option_shown_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    known = capsys.readouterr().out
    for match in COMMAND.finditer(README):
        if match[1] == command:
            for option in re.findall(r"--[a-z-]+", match[2]):
                assert option in known, f"{match[0]}: {command} has no {option}"


def test_every_make_target_shown_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^    |`)make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_stage_shown_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_stages.py").write_text(file_in_readme("my_stages.py"))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = find_stage("my_stages:Buckets")
    ids, offsets = np.array([-1, 0, 12345, 2**62], dtype=np.int64), np.array([0, 2, 4])
    features = {"user": FeatureIds(ids, offsets), "item": FeatureIds(ids, offsets)}
    batch = RawBatch(2, features, np.zeros((2, 0), np.float32), np.ones(2, np.float32))
    folded = found(found.Options.model_validate({"features": ["user"], "buckets": 1000})).work(batch)
    assert folded.features["user"].ids_n.tolist() == [999, 0, 345, 2**62 % 1000]
    assert folded.features["item"].ids_n.tolist() == ids.tolist()
    assert batch.features["user"].ids_n.tolist() == ids.tolist()


def test_the_fetch_shown_works_beside_training(tmp_path: Path) -> None:
    shown = re.search(r"^    (rows = store\.fetch_rows\(.*)\n    (rows\.step, .*)$", README, flags=re.MULTILINE)
    assert shown is not None
    found: list[Any] = []

    def watch(resources: Resources) -> None:
        def fetch(step: int, _plan: Any) -> None:
            names: dict[str, Any] = {"store": resources.store}
            exec(shown[1], names)
            found.append((step, eval(shown[2], names)))

        resources.store.on_step(fetch)

    run_job(tmp_path / "run", "quickstart", "run.steps=3", on_open=watch)
    for step, (of, weights_nd, momentum_n1, versions_n2, updated_n) in found:
        assert of == step
        assert (weights_nd.shape, momentum_n1.shape, versions_n2.shape) == ((3, 32), (3, 1), (3, 2))
        assert weights_nd[0].tobytes() == weights_nd[2].tobytes()
        assert updated_n.tolist() == (versions_n2[:, 1] > 0).tolist()
    assert len(found) == 3


def test_the_config_with_the_stage_puts_it_behind_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "buckets.yaml").write_text(file_in_readme("buckets.yaml"))
    stages = compose(["buckets.yaml"], []).plain()["stages"]
    assert list(stages)[:2] == ["source", "buckets"]
    assert "use" in stages["source"]


def test_the_config_shown_composes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(file_in_readme("mine.yaml"))
    tree = compose(["mine.yaml"], []).plain()
    assert tree["store"]["l1_rows"] == 20_000
    assert tree["stages"]["stream"]["every"] == "10 steps"
    assert next(iter(tree["stages"])) == "source"


def test_the_stage_the_commands_and_the_replica_shown_work_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As typed in a directory that holds the files of the README, with fewer steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("my_stages.py", "buckets.yaml", "serve.py"):
        (tmp_path / name).write_text(file_in_readme(name))
    ran = here("run", "buckets.yaml", "run.steps=3", "run.dir=runs/quickstart")
    assert ran.code == 0, ran.text
    assert here("rows", "runs/quickstart", "--table", "user", "--ids", "1", "2", "3").code == 0
    assert here("export", "runs/quickstart", "--table", "user", "--out", "user.npz").code == 0
    assert here("replica", "runs/quickstart", "--table", "user", "--export", "replica.npz").code == 0
    with np.load("user.npz") as ours, np.load("replica.npz") as theirs:
        assert 0 <= ours["ids"].min() <= ours["ids"].max() < 1000
        assert ours["weights"].tobytes() == theirs["weights"].tobytes()
    runpy.run_path("serve.py")
    assert capsys.readouterr().out.startswith("3 (3, 32) [")
    assert here("replica", "runs/quickstart", "--verify", "runs/quickstart").code == 0
    assert "nothing is left to publish" in here("publish", "runs/quickstart").out


def test_the_client_shown_is_answered_by_the_service_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_job(tmp_path / "runs" / "quickstart", "quickstart", "run.steps=3")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ask.py").write_text(file_in_readme("ask.py"))
    address = Address("127.0.0.1", 0)
    with Replica("runs/quickstart") as replica, Service(replica, "shown", address, "replica.sock", 10.0) as service:
        assert service.http is not None
        until(lambda: asked(service.http.address.port, "/readyz")[0] == 200)  # type: ignore[union-attr]
        until(lambda: replica.step == 3)
        status, body = asked(service.http.address.port, "/rows/user?ids=1,2")
        assert status == 200
        assert [row["id"] for row in json.loads(body)["rows"]] == [1, 2]
        capsys.readouterr()
        runpy.run_path("ask.py")
    assert capsys.readouterr().out.splitlines()[0] == "3 (3, 32) (1, 32)"


def test_the_identities_shown_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "identities.yaml").write_text(file_in_readme("identities.yaml"))
    assert here("run", "identities.yaml", "run.steps=3").code == 0
    assert here("export", "runs/identities", "--table", "user", "--out", "user.npz").code == 0
    with np.load("user.npz") as rows:
        row_id, raw = int(rows["ids"][0]), int(rows["meta_identity"][0, 0])
        assert np.array_equal(bucket_ids(rows["meta_identity"][:, 0], 5000), rows["ids"])
    shown = here("rows", "runs/identities", "--table", "user", "--ids", str(row_id))
    assert f"identity: {raw}" in shown.text


def test_the_hooks_shown_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("my_hooks.py", "hooks.yaml"):
        (tmp_path / name).write_text(file_in_readme(name))
    ran = here("run", "hooks.yaml", "run.steps=3")
    assert ran.code == 0, ran.text
    assert "the longest row has a norm of" in ran.text
    told = json.loads((tmp_path / "runs" / "hooks" / "summary.json").read_text())["hooks"]
    assert [(hook["name"], hook["skipped"]) for hook in told] == [("large", 0), ("longest", 0)]
    assert [hook["calls"] for hook in told] == [3, 9]  # quickstart has three tables


def test_the_loop_shown_trains_and_commands_take_what_it_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_loop.py").write_text(file_in_readme("my_loop.py"))
    names = runpy.run_path("my_loop.py")
    assert names["rows"].step == 20
    assert here("rows", "runs/my_loop", "--table", "user", "--ids", "1").code == 0
    assert here("export", "runs/my_loop", "--table", "item", "--out", "item.npz").code == 0
    assert here("verify", "runs/my_loop").code == 0
    assert here("replica", "runs/my_loop", "--table", "item", "--export", "replica.npz").code == 0
    with np.load("item.npz") as ours, np.load("replica.npz") as theirs:
        assert len(ours["ids"]) > 1000
        assert ours["weights"].tobytes() == theirs["weights"].tobytes()


def test_the_load_shown_is_made_once_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loaded.py").write_text(file_in_readme("loaded.py"))
    for generation in (1, 2):
        names = runpy.run_path("loaded.py")
        assert names["rows"].step == 20, f"generation {generation}"
    shown = json.loads(here("rows", "runs/loaded", "--table", "item", "--ids", "7", "499", "--json").text)
    assert shown["step"] == 10, "the second life went on from the save behind the load"
    for row in shown["rows"]:
        assert row["version"] == [1, 10]
        assert row["weight"] == names["vectors"][row["id"]].tolist()


def test_the_selection_shown_streams_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "selected.yaml").write_text(file_in_readme("selected.yaml"))
    ran = here("run", "selected.yaml", "run.steps=3")
    assert ran.code == 0, ran.text
    with closing(FileTransport("runs/selected/stream")) as transport:
        header = decode_frame(next(frames_of(transport)))
    assert isinstance(header, HeaderFrame)
    told = {table.spec.name: (table.codec, table.carries) for table in header.tables}
    assert "user" not in told
    assert told.pop("item") == ("fp32", ("momentum",))
    assert set(told.values()) == {("fp16", ())}


def test_the_bag_shown_is_streamed_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_bag.py").write_text(file_in_readme("my_bag.py"))
    names = runpy.run_path("my_bag.py")
    assert names["streamer"].committed_step == 101
    assert here("replica", "runs/my_bag", "--table", "item", "--export", "item.npz").code == 0
    with np.load("item.npz") as held:
        assert held["weights"].tobytes() == names["bag"].weight.detach().numpy().tobytes()
        assert held["version"][:, 1].max() == 101


def test_the_torchrec_model_shown_trains(tmp_path: Path) -> None:
    torchrec()
    (tmp_path / "torchrec_model.py").write_text(file_in_readme("torchrec_model.py"))
    names = runpy.run_path(str(tmp_path / "torchrec_model.py"))
    assert names["model"].ebc.step == 1
