"""The command demo: what it says when it is interrupted."""

import pytest


@pytest.mark.parametrize(("stopped_in", "text"), [("_make_data", ""), ("_train_and_score", "; training begins anew")])
def test_an_interrupted_demo_says_what_is_kept(call, monkeypatch, tmp_path, stopped_in, text):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("respike.cli.demo._make_data", lambda *_: (None, None))
    monkeypatch.setattr(f"respike.cli.demo.{stopped_in}", stop)
    answer = call("demo", "--out", tmp_path)
    kept = "finished videos and shards are kept, run the same command to go on"
    assert (answer.code, answer.err.strip()) == (130, f"error: interrupted: {kept}{text}")
