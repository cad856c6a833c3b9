"""Catalog: a name, a path or an address → weights that are whole and checked; what cannot be had is one line."""

import json
import shutil

import fsspec
import pytest
import respike.zoo.catalog as catalog
import torch
from respike.common.errors import CheckpointError, DownloadError, MismatchError, RespikeError
from respike.zoo.checkpoint import load_checkpoint, verify_weights
from respike.zoo.factory import create_model
from respike.zoo.weights import (
    CARDS_FOLDER,
    DEFAULT_NAME,
    WeightCard,
    download,
    find_card,
    look,
    names_weights,
    read_card,
    read_cards,
    resolve_weights,
)

from tests.common.download.server import running
from tests.zoo.published import files_at, save_small

NAME = "respike_tiny.test"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESPIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RESPIKE_ZOO_MIRROR", raising=False)
    monkeypatch.delenv("RESPIKE_OFFLINE", raising=False)
    return tmp_path / "cache" / "zoo"


@pytest.fixture
def server(published):
    with running() as server:
        server.files |= files_at(published, f"/{NAME}")
        yield server


@pytest.fixture
def listed(published, server, tmp_path, monkeypatch):
    """The zoo knows the published weights, with the server as their source."""
    cards = shutil.copytree(CARDS_FOLDER, tmp_path / "cards")
    card = read_card(published / "card.json")
    card = WeightCard(**{**vars(card), "sources": (server.url(f"/{NAME}"),)})
    (cards / f"{NAME}.json").write_text(card.to_text())
    monkeypatch.setattr(catalog, "read_cards", lambda: read_cards(cards))
    return card


def same(path, published):
    return path.read_bytes() == (published / "model.safetensors").read_bytes()


def test_the_default_loads_from_the_package_without_a_network(cache):
    model = create_model("respike_tiny", pretrained=DEFAULT_NAME)
    assert model.training
    assert model.config.num_classes == 16
    assert not cache.exists()


def test_a_name_is_fetched_once_and_checked(listed, server, published):
    path = resolve_weights(NAME)
    assert same(path, published)
    num_requests = len(server.requests)
    assert num_requests == 2
    assert resolve_weights(NAME) == path
    assert len(server.requests) == num_requests
    assert load_checkpoint(NAME)[0].config.num_classes == 3


def test_what_was_fetched_is_used_offline_and_what_was_not_is_named(listed, server, monkeypatch):
    with pytest.raises(DownloadError, match="offline") as caught:
        resolve_weights(NAME, offline=True)
    assert f"curl -L -O '{server.url(f'/{NAME}/model.safetensors')}'" in caught.value.hint
    monkeypatch.setenv("RESPIKE_OFFLINE", "1")
    with pytest.raises(DownloadError, match="offline"):
        load_checkpoint(NAME)
    assert server.requests == []
    fetched = resolve_weights(NAME, offline=False)
    assert resolve_weights(NAME) == fetched


def test_wrong_bytes_of_the_right_size_are_never_kept(listed, server, cache):
    path = f"/{NAME}/model.safetensors"
    content = bytearray(server.files[path])
    content[-1] ^= 1
    server.files[path] = bytes(content)
    with pytest.raises(DownloadError, match="SHA-256 is not"):
        resolve_weights(NAME)
    assert not list(cache.rglob("model.safetensors"))


def test_a_mirror_is_asked_first_and_the_source_after_it(listed, server, published, monkeypatch):
    with running() as mirror:
        mirror.files |= files_at(published, f"/zoo/{NAME}")
        monkeypatch.setenv("RESPIKE_ZOO_MIRROR", mirror.url("/zoo/"))
        assert same(resolve_weights(NAME), published)
        assert (len(mirror.requests), len(server.requests)) == (2, 0)
        shutil.rmtree(catalog.cache_folder())
        del mirror.files[f"/zoo/{NAME}/model.safetensors"]
        assert same(resolve_weights(NAME), published)
        assert [path for path, _ in server.requests] == [f"/{NAME}/model.safetensors"]


def test_an_address_over_http_gives_what_was_published(server, published):
    address = server.url(f"/{NAME}")
    assert same(resolve_weights(address), published)
    assert same(resolve_weights(f"{address}/"), published)
    ours, _ = load_checkpoint(address)
    theirs, _ = load_checkpoint(published)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_an_address_of_any_store_gives_what_was_published(published):
    store = fsspec.filesystem("memory")
    store.put(f"{published}/", "/bucket/weights/", recursive=True)
    assert same(resolve_weights("memory://bucket/weights"), published)


def test_an_address_without_a_card_is_one_line(server):
    with pytest.raises(DownloadError, match="404"):
        resolve_weights(server.url("/nothing"))


def test_a_card_from_elsewhere_cannot_write_outside_the_cache(server, cache, tmp_path):
    card = json.loads(server.files[f"/{NAME}/card.json"])
    card["files"][0]["name"] = "../../../evil"
    server.files[f"/{NAME}/card.json"] = json.dumps(card).encode()
    with pytest.raises(CheckpointError, match=r"the file name .*evil"):
        resolve_weights(server.url(f"/{NAME}"))
    assert not list(tmp_path.rglob("evil"))


def test_a_path_comes_before_a_name(listed, tmp_path, monkeypatch, server):
    monkeypatch.chdir(tmp_path)
    save_small(tmp_path / NAME)
    assert resolve_weights(NAME) == tmp_path.__class__(NAME)
    assert server.requests == []
    assert load_checkpoint(NAME)[1].image_size == 32


def test_a_path_that_looks_like_an_address_comes_first_where_it_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RespikeError, match=r"'run:3' is no address .*for a path of that name, \./ first"):
        resolve_weights("run:3")
    save_small(tmp_path / "run:3")
    assert resolve_weights("run:3") == tmp_path.__class__("run:3")


@pytest.mark.parametrize(
    ("given", "may_be"),
    [
        *(("hf://owner/repo", True), ("HF://owner/repo", True), ("s3://bucket/" + "x" * 300, True), (NAME, True)),
        *(("C://x", False), ("C:\\x", False), ("nothing", False), ("runs/nothing", False)),
    ],
)
def test_addresses_and_names_may_be_weights_and_paths_where_something_is(given, may_be, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert names_weights(given) == may_be
    (tmp_path / "runs").mkdir()
    assert names_weights("runs")


def test_other_paths_stay_as_they_are(tmp_path):
    for path in ("runs/x", "best.safetensors", "best", "C://x", tmp_path / "a.b"):
        assert resolve_weights(path) == tmp_path.__class__(path)


def test_an_unknown_name_suggests_the_nearest_and_a_recipe_says_how_to_train():
    with pytest.raises(CheckpointError, match=r"did you mean 'respike_tiny.demo16'"):
        resolve_weights("respike_tiny.demo15")
    with pytest.raises(CheckpointError, match=r"recipe: there are no weights yet \(train them: respike train --recipe"):
        resolve_weights("respike_r50.k400")


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_a_damaged_file_is_found_by_looking_at_it(listed, name):
    assert look(listed).state == "to fetch"
    path = download(listed).with_name(name)
    assert (look(listed).state, verify_weights(listed).state) == ("here", "here")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert verify_weights(listed).state == "damaged"
    assert name in verify_weights(listed).problem
    path.write_bytes(content[:-1])
    assert look(listed).state == "damaged"


@pytest.mark.parametrize(
    ("change", "words"),
    [({"num_parameters": 1}, "num_parameters"), ({"image_size": 64}, "image_size"), ({"model": {}}, "model")],
)
def test_a_card_that_tells_of_another_network_is_found(listed, change, words):
    card = WeightCard(**{**vars(listed), **change})
    download(card)
    assert verify_weights(card).state == "damaged"
    assert words in verify_weights(card).problem


def test_a_card_without_a_source_says_what_to_do(listed):
    card = WeightCard(**{**vars(listed), "sources": ()})
    with pytest.raises(CheckpointError, match="RESPIKE_ZOO_MIRROR"):
        download(card)


def test_a_pretrained_network_keeps_all_but_the_head_for_other_classes(listed):
    own, _ = load_checkpoint(NAME)
    model = create_model("respike_tiny", num_classes=7, branches="snn", pretrained=NAME)
    assert model.config.num_classes == 7
    for name, tensor in own.state_dict().items():
        if name.startswith("head."):
            assert model.state_dict()[name].shape[0] == 7
        else:
            assert torch.equal(model.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("respike_r18", {}, "a network whose name is 'respike_tiny'"),
        ("respike_tiny", {"branches": "hybrid"}, "whose branches is 'snn', asked was 'hybrid'"),
        ("respike_tny", {}, "did you mean 'respike_tiny'"),
    ],
)
def test_weights_of_another_network_are_refused_with_the_difference(listed, name, options, words):
    with pytest.raises(RespikeError, match=words) as caught:
        create_model(name, pretrained=NAME, **options)
    assert isinstance(caught.value, MismatchError) or "did you mean" in words


def test_find_card_names_what_there_is():
    assert find_card(DEFAULT_NAME).has_weights
    with pytest.raises(CheckpointError, match=DEFAULT_NAME):
        find_card("x.y")
