"""Weights: names, paths and addresses lead to checked files; cards are true; what does not fit is named."""

import dataclasses
import json
import shutil
from pathlib import Path

import fsspec
import pytest
import torch
from respike.common.errors import CheckpointError, DownloadError, MismatchError, RespikeError, SettingError
from respike.zoo import weights
from respike.zoo.checkpoint import load_checkpoint, verify_fetched, verify_weights
from respike.zoo.factory import create_model
from respike.zoo.models import model_config
from respike.zoo.publishing import zoo_table
from respike.zoo.recipe import read_recipe
from respike.zoo.weights import (
    CARDS_FOLDER,
    DEFAULT_NAME,
    CardScore,
    WeightCard,
    WeightFile,
    download,
    find_card,
    is_name,
    look,
    names_weights,
    read_card,
    read_cards,
    resolve_weights,
)

from tests.common.download.server import running
from tests.zoo.published import files_at, publish_as_earlier, save_small

NAME = "respike_tiny.test"
CARDS = read_cards()
DOCUMENT = Path(__file__).parents[2] / "docs" / "zoo.md"
RECIPES = {"respike_r50.hmdb51": "hmdb51", "respike_r50.ucf101": "ucf101", "respike_r50.k400": "kinetics400"}


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
    card = dataclasses.replace(card, sources=(server.url(f"/{NAME}"),))
    (cards / f"{NAME}.json").write_text(card.to_text())
    monkeypatch.setattr(weights, "read_cards", lambda: read_cards(cards))
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
    assert num_requests == 1
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


def test_a_cache_that_others_can_write_to_is_refused(listed, server, cache):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    with pytest.raises(RespikeError, match="is open to other users"):
        resolve_weights(NAME)
    assert server.requests == []


@pytest.mark.parametrize("variable", ["RESPIKE_CACHE", "XDG_CACHE_HOME"])
def test_weights_are_kept_where_all_of_respike_keeps_its_cache(listed, tmp_path, monkeypatch, variable):
    monkeypatch.delenv("RESPIKE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv(variable, str(tmp_path / "place"))
    home = tmp_path / "place" if variable == "RESPIKE_CACHE" else tmp_path / "place" / "respike"
    assert resolve_weights(NAME).is_relative_to(home / "zoo")


@pytest.fixture
def earlier(tmp_path):
    """A folder as earlier versions published it: the spec in a file of its own."""
    return publish_as_earlier(tmp_path / "earlier")


def test_a_folder_of_an_earlier_version_is_read_and_verified(earlier):
    with running() as server:
        server.files |= files_at(earlier, "/old")
        path = resolve_weights(server.url("/old"))
        assert {each.name for each in path.parent.iterdir()} >= {"model.json", "model.safetensors"}
        assert load_checkpoint(path)[1] == load_checkpoint(earlier)[1]
        (finding,) = verify_fetched()
        assert (finding.state, finding.problem) == ("here", "")
        content = path.with_name("model.json").read_bytes()
        path.with_name("model.json").write_bytes(content.replace(b"demo", b"dema").replace(b"bits", b"bats"))
        (finding,) = verify_fetched()
        assert finding.state == "damaged"
        assert "model.json has the SHA-256" in finding.problem


def test_a_mirror_is_asked_first_and_the_source_after_it(listed, server, published, monkeypatch, cache):
    with running() as mirror:
        mirror.files |= files_at(published, f"/zoo/{NAME}")
        monkeypatch.setenv("RESPIKE_ZOO_MIRROR", mirror.url("/zoo/"))
        assert same(resolve_weights(NAME), published)
        assert (len(mirror.requests), len(server.requests)) == (1, 0)
        shutil.rmtree(cache)
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
    with pytest.raises(RespikeError, match=r"'run:3' is no address .*write \./ before a path of that name"):
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


def test_the_files_of_a_card_are_found_damaged(listed):
    assert look(listed).state == "to fetch"
    path = download(listed)
    assert (look(listed).state, verify_weights(listed).state) == ("here", "here")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert verify_weights(listed).state == "damaged"
    assert path.name in verify_weights(listed).problem
    path.write_bytes(content[:-1])
    assert look(listed).state == "damaged"


@pytest.mark.parametrize(
    ("change", "words"),
    [({"num_parameters": 1}, "num_parameters"), ({"image_size": 64}, "image_size"), ({"model": {}}, "model")],
)
def test_a_card_that_tells_of_another_network_is_found(listed, change, words):
    card = dataclasses.replace(listed, **change)
    download(card)
    assert verify_weights(card).state == "damaged"
    assert words in verify_weights(card).problem


def test_a_card_without_a_source_says_what_to_do(listed):
    card = dataclasses.replace(listed, sources=())
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
        ("respike_tiny", {"branches": "hybrid"}, "whose branches is 'snn', not 'hybrid'"),
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


def test_the_table_of_the_document_is_made_of_the_cards():
    _, _, rest = DOCUMENT.read_text().partition("<!-- made by `respike zoo list --markdown` -->\n")
    assert rest.partition("<!-- end -->")[0].strip() == zoo_table(CARDS.values()).strip()


@pytest.mark.parametrize("name", CARDS)
def test_each_card_is_called_what_it_says_and_written_as_respike_writes_it(name):
    path = CARDS_FOLDER / f"{name}.json"
    assert path.read_text() == read_card(path).to_text()
    card = CARDS[name]
    named = model_config(card.architecture, num_classes=card.num_classes, branches=card.model["branches"])
    assert named.to_json() == card.model


@pytest.mark.parametrize("name", [name for name, card in CARDS.items() if card.has_weights])
def test_weights_in_the_package_are_those_of_their_cards(name):
    finding = verify_weights(CARDS[name])
    assert (finding.state, finding.problem) == ("in the package", "")


@pytest.mark.parametrize(("name", "recipe"), RECIPES.items())
def test_a_recipe_s_card_has_the_recipe_s_settings_and_no_score_of_ours(name, recipe):
    card = CARDS[name]
    assert not card.has_weights
    assert card.training == json.loads(json.dumps(read_recipe(recipe).training.to_json()))
    assert f"--recipe {recipe} " in card.command
    assert "without weights yet" in card.summary
    assert all(score.origin == "reported" for score in card.scores)


def card_with(**changes):
    return {**CARDS["respike_r50.k400"].to_json(), **changes}


FILE = {"name": "model.safetensors", "num_bytes": 1, "sha256": "0" * 64}
SCORE = {"metric": "top1", "value": 0.5, "of": "clips", "subset": "test", "origin": "reported", "by": "someone"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "../x"}, "the name '../x' is not arch.tag"),
        ({"name": "respike_tiny.safetensors"}, "is not arch.tag"),
        ({"files": [{**FILE, "name": "../model.safetensors"}]}, "the file name '../model.safetensors'"),
        ({"files": [{**FILE, "name": ".bashrc"}]}, "the file name '.bashrc'"),
        ({"files": [{**FILE, "name": "model.json"}]}, "name model.safetensors alone"),
        ({"files": [{**FILE, "sha256": "0" * 63}]}, "has 1 bytes, SHA-256 '000"),
        ({"files": [{**FILE, "num_bytes": 0}]}, "has 0 bytes"),
        ({"scores": [{**SCORE, "value": 70.1}]}, "give a fraction from 0 to 1"),
        ({"scores": [{**SCORE, "by": ""}]}, "does not say who reports it"),
        ({"scores": [{**SCORE, "origin": "measured here"}]}, "does not say the command"),
        ({"scores": [{**SCORE, "origin": "guessed"}]}, r"scores\[0\].origin is 'guessed'"),
        ({"data": 3}, "data is 3"),
        ({"code": "print()"}, "the field code is unknown"),
    ],
)
def test_a_card_that_does_not_fit_names_the_field(tmp_path, change, words):
    path = tmp_path / "card.json"
    path.write_text(json.dumps(card_with(**change)))
    with pytest.raises(CheckpointError, match=rf"card\.json is no weight card: .*{words}"):
        read_card(path)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff"])
def test_a_card_that_is_no_json_is_named(tmp_path, text):
    path = tmp_path / "card.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"card\.json cannot be read as JSON"):
        read_card(path)


def test_a_name_is_arch_and_tag():
    assert [is_name(name) for name in ("respike_tiny.demo16", "best.safetensors", "runs/x.y", "best", "A.b")] == [
        True,
        False,
        False,
        False,
        False,
    ]


def test_scores_and_files_are_checked_when_made():
    with pytest.raises(SettingError):
        CardScore(**{**SCORE, "value": float("nan")})
    with pytest.raises(SettingError):
        WeightFile(**{**FILE, "name": "a/b"})
    assert WeightCard(**vars(CARDS["respike_r50.k400"])).num_bytes == 0
