"""Sources: the tables of addresses are checked field by field, and lead nowhere else."""

from pathlib import Path

import pytest
from respike.common.errors import SettingError
from respike.data.acquire import Source, read_sources


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51", "kinetics400"])
def test_the_published_table_is_well_formed_and_safe(dataset):
    sources = read_sources(dataset)
    assert all(address.startswith("https://") for source in sources for address in source.addresses)
    assert all(source.is_archive or source.is_list or source.name.endswith(".csv") for source in sources)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


ONE = '[[ucf101]]\nname = "x.zip"\naddresses = ["http://here/x.zip"]\nto = "UCF-101"\n'


def test_a_users_file_replaces_the_data_sets_it_names(tmp_path):
    path = write(tmp_path / "my.toml", ONE)
    assert read_sources("ucf101", path) == (Source(name="x.zip", addresses=("http://here/x.zip",), to="UCF-101"),)
    assert read_sources("hmdb51", path) == read_sources("hmdb51")


def test_the_setting_wins_over_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("RESPIKE_SOURCES", str(write(tmp_path / "a.toml", ONE)))
    assert read_sources("ucf101")[0].name == "x.zip"
    other = write(tmp_path / "b.toml", ONE.replace("x.zip", "y.zip"))
    assert read_sources("ucf101", other)[0].name == "y.zip"


def test_an_unknown_data_set_is_refused_with_the_known_ones():
    with pytest.raises(SettingError, match="no source is known for folder, only for hmdb51, kinetics400, ucf101"):
        read_sources("folder")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[ucf101", "is no TOML"),
        ("ucf101 = 3", "is no list of tables"),
        ("ucf101 = []", "is no list of tables"),
        ("ucf101 = [1]", "is no list of tables"),
        (ONE + "size = 3\n", r"ucf101\[0\]\.size is unknown .choose from name, addresses"),
        ('[[ucf101]]\nname = "x.zip"\n', r"ucf101\[0\]\.addresses is missing"),
        (ONE + "num_bytes = true\n", "num_bytes is True"),
        (ONE + "num_bytes = -1\n", "num_bytes is -1"),
        (ONE + 'nested = "yes"\n', "nested is 'yes'"),
        (ONE + "unless = [3]\n", r"unless\[0\] is 3"),
        (ONE + 'sha256 = "12"\n', "the sha256 of x.zip"),
        (ONE + ONE, "two files of one name"),
        (ONE.replace('"UCF-101"', '"../UCF-101"'), "leads out of its folder"),
        (ONE.replace('"UCF-101"', '"/UCF-101"'), "leads out of its folder"),
        (ONE.replace('"UCF-101"', '"."'), "leads out of its folder"),
        (ONE.replace('name = "x.zip"', 'name = "a/x.zip"'), "leads out of its folder"),
        (ONE.replace('["http://here/x.zip"]', "[]"), "has no addresses"),
    ],
)
def test_a_malformed_file_is_refused_with_the_reason(tmp_path, text, words):
    with pytest.raises(SettingError, match=words):
        read_sources("ucf101", write(tmp_path / "my.toml", text))


def test_a_missing_file_is_one_error(tmp_path):
    with pytest.raises(SettingError, match="cannot read the sources"):
        read_sources("ucf101", tmp_path / "none.toml")


LIST = Source(name="list.txt", addresses=("https://there/400/list.txt",), to="train", is_list=True)


def test_each_archive_of_a_list_gets_its_own_folder():
    assert LIST.listed("https://s3/part_0.tar.gz\r\npart_1.tar.gz\n\n") == [
        Source(name="part_0.tar.gz", addresses=("https://s3/part_0.tar.gz",), to="train/part_0"),
        Source(name="part_1.tar.gz", addresses=("https://there/400/part_1.tar.gz",), to="train/part_1"),
    ]


@pytest.mark.parametrize(
    "line", ["file:///etc/x.tar", "s3://bucket/x.tar", "x.mp4", "", "a/x.tar b/x.tar", "https://h/"]
)
def test_a_list_that_names_anything_else_is_refused(line):
    with pytest.raises(SettingError):
        LIST.listed(line)


@pytest.mark.parametrize("base", ["hf://datasets/owner/repo/list.txt", "s3://bucket/sets/list.txt"])
def test_a_list_in_a_store_never_leads_to_this_machine(base):
    listed = Source(name="list.txt", addresses=(base,), to="train", is_list=True).listed
    folder = base.rpartition("/")[0]
    assert [source.addresses for source in listed("a.tar b/c.zip")] == [(f"{folder}/a.tar",), (f"{folder}/b/c.zip",)]
    for line in ("file:///etc/x.tar", "local:///etc/x.tar", "memory://x.tar"):
        with pytest.raises(SettingError, match="which is on this machine"):
            listed(line)
    with pytest.raises(SettingError, match="no address that respike opens; allowed are"):
        listed("github://owner:repo@main/x.tar")
