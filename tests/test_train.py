"""The entry point of the training."""

from solo_dist import train


def test_the_command_that_goes_on_names_no_checkpoint(monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["train", "--resume", "runs/a/step_1", "--config.data.canvas=(64, 96)", "-resume=b"]
    )
    monkeypatch.delenv("SOLO_DIST_JOB_ID", raising=False)
    assert train._how_to_go_on().endswith(" -m solo_dist.train '--config.data.canvas=(64, 96)'")
