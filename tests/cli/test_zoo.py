"""`respike zoo`: what is listed, shown, fetched, checked and published; JSON for scripts, one line for what fails."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from respike.data import open_shards
from respike.data.datasets import DATASETS, ListingRequest
from respike.data.preparation import prepare
from respike.data.prepare_config import PrepareConfig
from respike.data.synthetic import DemoSettings, write_demo
from respike.zoo import weights
from respike.zoo.checkpoint import load_checkpoint
from respike.zoo.compatibility import hash_video
from respike.zoo.factory import create_model
from respike.zoo.published_code import published_name

from tests.common.download.server import running
from tests.conftest import listing_of
from tests.zoo import golden
from tests.zoo.published import SCORES, files_at, publish_small, save_small


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("RESPIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RESPIKE_ZOO_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_list_tells_weights_from_recipes(call):
    answer = call("zoo", "list")
    lines = {line.split()[0]: line for line in answer.out.splitlines()}
    assert "in the package" in lines["respike_tiny.demo16"]
    assert "no weights yet" in lines["respike_r50.k400"]
    assert "70.1 % of clips (val), reported by the paper" in lines["respike_r50.k400"]
    states = {row["name"]: row["state"] for row in json.loads(call("zoo", "list", "--json").out)}
    assert states["respike_r50.hmdb51"] == "no weights yet"
    assert call("zoo", "list", "--markdown").out.startswith("| name | data |")


def test_a_card_is_shown_with_the_command_that_trained_it(call):
    answer = call("zoo", "show", "respike_tiny.demo16")
    assert "respike demo" in answer.out
    assert "measured here" in answer.out
    assert json.loads(call("zoo", "show", "respike_tiny.demo16", "--json").out)["state"] == "in the package"


def test_the_default_download_needs_no_network(call, place):
    answer = call("zoo", "download", "--offline")
    assert answer.out.strip().endswith("respike_tiny.demo16/model.safetensors")
    assert not (place / "cache").exists()


def test_a_download_by_address_is_told_by_path(call, place):
    publish_small(place)
    with running() as server:
        server.files |= files_at(place / "published", "/small")
        address = server.url("/small")
        paths = json.loads(call("zoo", "download", address, "--json").out)
        assert paths[address].startswith(str(place / "cache"))
        assert json.loads(call("zoo", "show", address, "--json").out)["state"] == "here"
    assert call("zoo", "download", address, "--offline").code == 0


def test_verify_exits_1_on_damaged_weights(call, monkeypatch, place):
    answer = call("zoo", "verify")
    assert (answer.code, "damaged" in answer.out) == (0, False)
    monkeypatch.setattr(weights, "WEIGHTS_FOLDER", shutil.copytree(weights.WEIGHTS_FOLDER, place / "weights"))
    path = place / "weights" / "respike_tiny.demo16" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    answer = call("zoo", "verify", "respike_tiny.demo16", "--json")
    assert answer.code == 1
    (finding,) = json.loads(answer.out)
    assert finding["state"] == "damaged"
    assert "SHA-256" in finding["problem"]


def test_verify_looks_at_what_was_fetched_by_its_address_too(call, place):
    save_small(place / "run")
    named = ["--name", "respike_tiny.mine", "--licence", "MIT"]
    assert "--to ADDRESS" in call("zoo", "publish", "run", *named).out
    path = Path(call("zoo", "download", f"file://{place}/published/respike_tiny.mine").out.strip())
    assert json.loads(call("zoo", "verify", "--json").out)[-1] == {
        "name": "respike_tiny.mine",
        "state": "here",
        "folder": str(path.parent),
        "problem": "",
    }
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    answer = call("zoo", "verify")
    assert answer.code == 1
    assert "respike_tiny.mine    damaged" in answer.out


def test_verify_reports_an_unreadable_card_and_goes_on(call, place):
    from respike.common.files import cache_folder
    from respike.zoo.weights import CARDS_FOLDER

    mirrored = cache_folder("zoo") / "address-0"
    mirrored.mkdir(parents=True)
    # its author's sources say that it is in the package; its weights were never fetched
    (mirrored / "card.json").write_bytes((CARDS_FOLDER / "respike_tiny.demo16.json").read_bytes())
    torn = cache_folder("zoo") / "address-1"
    torn.mkdir()
    (torn / "card.json").write_text("{")
    answer = call("zoo", "verify", "--json")
    assert answer.code == 1
    fetched = [each for each in json.loads(answer.out) if each["name"].startswith("address")]
    assert [(each["name"], each["state"]) for each in fetched] == [("address-1", "damaged")]
    assert [each["name"] for each in json.loads(answer.out)].count("respike_tiny.demo16") == 1


def test_publish_writes_the_folder_and_uploads_it(call, place):
    save_small(place / "run")
    (place / "scores.json").write_text(json.dumps(SCORES))
    named = ["--name", "respike_tiny.mine", "--licence", "MIT", "--scores", "scores.json"]
    answer = call("zoo", "publish", "run", *named, "--to", "memory://zoo/mine", "--json")
    assert answer.code == 0
    told = json.loads(answer.out)
    assert told["out"] == "published/respike_tiny.mine"
    assert told["card"]["scores"][0]["command"] == "respike score respike_tiny.mine"
    assert call("zoo", "show", "memory://zoo/mine").code == 0


def test_an_address_of_another_protocol_is_refused_at_once(call, place):
    save_small(place / "run")
    named = ["--name", "respike_tiny.mine", "--licence", "MIT"]
    answer = call("zoo", "publish", "run", *named, "--to", "github://owner/repo")
    assert (answer.code, answer.out) == (1, "")
    assert "allowed are a path and https://" in answer.err
    assert not (place / "published").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "respike_tiny.demo15"), "did you mean 'respike_tiny.demo16'"),
        (("download", "respike_r50.k400"), "there are no weights yet"),
        (("download", "file:///nowhere"), "there is no file:///nowhere/card.json"),
        (("publish", "nowhere", "--name", "respike_tiny.x", "--licence", "MIT"), "there is no checkpoint nowhere"),
    ],
)
def test_an_error_is_one_line_and_a_hint(call, arguments, words):
    answer = call("zoo", *arguments)
    assert answer.code == 1
    error, hint = answer.err.splitlines()
    assert words in error + hint
    assert (error[:7], hint[:6]) == ("error: ", "hint: ")


def test_the_packaged_network_classifies_new_demo_videos(call, place):
    settings = DemoSettings(seed=7, train_videos=1, test_videos=1)
    write_demo(place / "videos", settings, num_workers=1)
    listing = DATASETS["demo"].list_videos(ListingRequest(root=place / "videos"))
    prepare(listing, place / "shards" / "demo", PrepareConfig(clip_length=settings.clip_length), num_workers=1)
    # made anew under the names of videos it has learned from: the test set alone has names of its own
    answer = call("score", "respike_tiny.demo16", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["clip"]["top1"] >= 0.9


def test_a_training_starts_from_a_name_of_the_zoo(call, small_shards, place):
    named = ["--data", small_shards, "--model", "respike_tiny", "--epochs", 1, "--image-size", 32, "--no-flip"]
    answer = call("train", *named, "--init", "respike_tiny.demo16", "--out", "run")
    assert answer.code == 0
    assert "from respike_tiny.demo16: loaded: ANN branch, SNN branch, fusions; from random weights: head" in answer.err
    answer = call("train", *named, "--init", "respike_tiny.demo15", "--out", "other")
    assert (answer.code, "did you mean 'respike_tiny.demo16'" in answer.err) == (1, True)


def test_a_network_of_options_is_trained_and_published(call, small_shards, place):
    options = ["--set", "backbone=test_resnet", "--set", "snn_width=32", "--set", "neuron=plif", "--set", "fusion=none"]
    named = ["--data", small_shards, "--model", "respike", "--epochs", 1, "--image-size", 32, "--no-flip"]
    assert call("train", *named, *options, "--out", "run").code == 0
    answer = call("zoo", "publish", "run", "--name", "respike.mine", "--licence", "MIT", "--json")
    assert answer.code == 0
    command = json.loads(answer.out)["card"]["command"]
    assert "--set backbone=test_resnet" in command
    assert "--set neuron=plif" in command
    assert call("score", "file://" + str(place / "published" / "respike.mine"), "--data", small_shards).code == 0
    refused = call("train", *named[:3], "respike_r18", *options, "--out", "other")
    assert "respike_r18 is fixed and takes no options" in refused.err


def test_a_checkpoint_of_the_published_code_is_imported(call, place, video_folder):
    prepare(listing_of(video_folder), place / "exact", PrepareConfig(color="rgb", threshold=1), num_workers=1)
    model = create_model("respike_r18", num_classes=2)
    names = {name: published_name(name) for name in model.state_dict()}
    drawn = {
        theirs: torch.from_numpy(np.asarray(golden.weights(theirs, list(model.state_dict()[ours].shape))))
        for ours, theirs in names.items()
    }
    torch.save({"state_dict": drawn}, place / "theirs.pth")
    asked = ["zoo", "import", "theirs.pth", "--data", "exact", "--out", "in/ours.safetensors", "--image-size", "32"]
    answer = call(*asked, "--eval-crop", "0.875", "--epochs", "100")
    assert (answer.code, answer.err) == (0, "")
    imported, spec = load_checkpoint(place / "in/ours.safetensors")
    for ours, theirs in names.items():
        assert torch.equal(imported.state_dict()[ours], drawn[theirs].to(imported.state_dict()[ours].dtype))
    assert (spec.image_size, spec.eval_crop, spec.epoch, spec.data.classes) == (32, 0.875, 100, ("jump", "wave"))
    assert set(spec.train_videos) == {hash_video(row.video) for row in open_shards(place / "exact", "train").clips}
    scored = call(*answer.out.splitlines()[-1].removeprefix("next: respike ").split(), "--json")
    assert json.loads(scored.out)["provenance"]["eval_crop"] == 0.875
    assert "trained on" in call("score", "in/ours.safetensors", "--data", "exact", "--subset", "train").err
    published = call("zoo", "publish", "in/ours.safetensors", "--name", "respike_r18.theirs", "--licence", "MIT")
    assert published.code == 0, published.err
    # nothing is written over
    again = call(*asked)
    assert again.code == 1
    assert "exists already" in again.err


def test_shards_that_are_not_the_published_input_are_warned_of(call, place, small_shards):
    torch.save({"fc.weight": torch.zeros(2, 8)}, place / "theirs.pth")
    answer = call("zoo", "import", "theirs.pth", "--data", small_shards, "--out", "ours.safetensors")
    assert answer.code == 1
    told = " ".join(answer.err.split())
    assert "color ycc and threshold 8: prepare with color rgb and threshold 1" in told
    assert "lacks ann_layer1.0.conv1.weight" in told
    assert not (place / "ours.safetensors").exists()
